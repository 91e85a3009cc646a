"""The demo's built-in labs: the anatomy's scanners and determinism, settings that fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from braintorrent import plugins
from braintorrent.errors import LocalError
from braintorrent.experiments import anatomy, settings

ONE_EACH = {"training": 1, "validation": 1, "test": 1}


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("anatomy")
    return anatomy.make_labs(folder, [f"lab-{c}" for c in "abcde"], 3, ONE_EACH)


def volume(lab: Path, kind: str, name: str = "training_0") -> np.ndarray:
    return np.asarray(nibabel.load(lab / kind / f"{name}.nii.gz").dataobj)


def test_each_lab_has_its_own_scanner(labs: dict[str, Path]) -> None:
    def contrast(lab: Path) -> float:
        image, label = volume(lab, "imagesTr"), volume(lab, "labelsTr")
        return float(image[label == 2].mean() / image[label == 3].mean())  # grey over white matter

    def noise(lab: Path) -> float:
        corner = volume(lab, "imagesTr")[:6, :6, :6]  # air
        return float(corner.mean())

    plain, dark, bright, thick, again = labs.values()
    assert contrast(dark) < contrast(plain) < contrast(bright)
    assert noise(thick) > 2 * noise(plain)
    assert json.loads((again / "dataset.json").read_text())["name"].endswith("plain")


def test_scans_are_brains_with_every_label(labs: dict[str, Path]) -> None:
    for lab in labs.values():
        label = volume(lab, "labelsTr")
        assert label.shape == volume(lab, "imagesTr").shape == anatomy.SHAPE
        shares = np.bincount(label.ravel(), minlength=4) / label.size
        assert (shares > 0.01).all()
        assert shares[2] > shares[3] > shares[1]
        assert not np.array_equal(label, volume(lab, "labelsTr", "test_0"))


def test_the_same_seed_gives_the_same_scans(labs: dict[str, Path], tmp_path: Path) -> None:
    (again,) = anatomy.make_labs(tmp_path / "same", ["lab-a"], 3, ONE_EACH).values()
    (other,) = anatomy.make_labs(tmp_path / "other", ["lab-a"], 4, ONE_EACH).values()
    for name in ("training_0", "validation_0", "test_0"):
        assert np.array_equal(volume(again, "imagesTr", name), volume(labs["lab-a"], "imagesTr", name))
    assert not np.array_equal(volume(other, "imagesTr"), volume(again, "imagesTr"))


def test_without_the_template_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nilearn.datasets

    def absent(**_: Any) -> None:
        raise ValueError("File not found")

    monkeypatch.setattr(nilearn.datasets, "load_mni152_template", absent)
    with pytest.raises(LocalError, match="reinstall nilearn"):
        anatomy.make_labs(tmp_path, ["lab-a"], 0)
    monkeypatch.setitem(__import__("sys").modules, "nilearn", None)
    with pytest.raises(LocalError, match="pip install"):
        anatomy.make_labs(tmp_path, ["lab-a"], 0)


def test_the_task_accepts_its_settings(labs: dict[str, Path]) -> None:
    plugin = plugins.load("tasks", "segmentation")
    for lab in (labs["lab-a"], labs["lab-b"]):
        task = plugin.open_task(settings.brain_task(), lab, "cpu", "here")
        assert task.batch(0, 0)["image"].shape[0] == settings.brain_task()["batch"]
