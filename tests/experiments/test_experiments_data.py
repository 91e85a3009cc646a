"""Lab data: the anatomy's scanners and determinism, splits without overlap, settings that fit a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from braintorrent import plugins
from braintorrent.errors import DataError, LocalError
from braintorrent.experiments import anatomy, settings
from braintorrent.experiments.split import pool, read, split

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


def decathlon(folder: Path, cases: int, shape: tuple[int, ...] = (36, 50, 17)) -> Path:
    listed = []
    for number in range(cases):
        entry = {"image": f"./imagesTr/s_{number}.nii.gz", "label": f"./labelsTr/s_{number}.nii.gz"}
        for path in entry.values():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), folder / path)
        listed.append(entry)
    described = {
        "labels": {"0": "background", "1": "left", "2": "right"}, "modality": {"0": "T1", "1": "T2"},
        "training": listed, "test": ["./imagesTs/unlabelled.nii.gz"],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def test_a_split_deals_each_case_once(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "source", 22)
    labs = split(source, tmp_path / "labs", ["a", "b"], 1)
    dealt = {lab: read(folder)[1] for lab, folder in labs.items()}
    images = [case["image"] for parts in dealt.values() for cases in parts.values() for case in cases]
    assert len(set(images)) == len(images) == 22
    assert all(Path(image).is_file() for image in images)
    sizes = {lab: [len(parts[part]) for part in ("training", "validation", "test")] for lab, parts in dealt.items()}
    assert sizes == {"a": [7, 1, 3], "b": [7, 1, 3]}
    assert split(source, tmp_path / "again", ["a", "b"], 1) != labs
    assert read(tmp_path / "again" / "a") == read(labs["a"])
    split(source, tmp_path / "other", ["a", "b"], 2)
    assert read(tmp_path / "other" / "a") != read(labs["a"])


def test_pooling_undoes_a_split(tmp_path: Path) -> None:
    labs = split(decathlon(tmp_path / "source", 12), tmp_path / "labs", ["a", "b", "c"], 1)
    pooled = read(pool(list(labs.values()), tmp_path / "pooled"))[1]
    for part in ("training", "validation", "test"):
        assert pooled[part] == [case for lab in labs.values() for case in read(lab)[1][part]]


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "source", 5)
    with pytest.raises(DataError, match="5 labelled cases are too few for 2 labs"):
        split(source, tmp_path / "labs", ["a", "b"], 0)
    with pytest.raises(DataError, match="no such file"):
        split(tmp_path, tmp_path / "labs", ["a"], 0)
    (source / "dataset.json").write_text('{"training": [3]}')
    with pytest.raises(DataError, match="not a Decathlon"):
        split(source, tmp_path / "labs", ["a"], 0)


def test_settings_fit_the_folder(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "source", 3)
    task = settings.decathlon_task(source)
    assert (task["labels"], task["channels"], task["patch"]) == (["background", "left", "right"], 2, [32, 48, 16])
    (source / "imagesTr" / "s_0.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match="not readable"):
        settings.decathlon_task(source)


def test_the_task_accepts_its_settings(labs: dict[str, Path]) -> None:
    plugin = plugins.load("tasks", "segmentation")
    for lab in (labs["lab-a"], labs["lab-b"]):
        task = plugin.open_task(settings.brain_task(), lab, "cpu", "here")
        assert task.batch(0, 0)["image"].shape[0] == settings.brain_task()["batch"]
    three_dimensional = settings.decathlon_task(labs["lab-a"])
    assert three_dimensional["patch"] == [48, 48, 48]
    assert three_dimensional["labels"] == list(anatomy.LABELS)
