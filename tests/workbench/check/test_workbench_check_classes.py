"""Whole images with classes: a MedMNIST file and folders of pictures, each broken in one place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

TASK = {
    "kind": "classification", "labels": ["normal", "pneumonia"], "size": [16, 16], "network": "DenseNet",
    "network_args": {"init_features": 4, "growth_rate": 2, "block_config": [1]}, "batch": 4, "steps": 2,
}  # fmt: skip
Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    found = {}
    for part, count in (("train", 8), ("val", 4)):
        found[f"{part}_images"] = rng.integers(0, 255, (count, 16, 16), np.uint8)
        found[f"{part}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    return found


@pytest.fixture
def classes(lab: Any) -> Any:
    """The lab, but for whole images; its data are still to be written."""
    import tomli_w

    shutil.rmtree(lab.folder / "data")
    (lab.folder / "data").mkdir()
    lab.federation_with = lambda **task: (lab.folder / "federation.toml").write_text(
        tomli_w.dumps({"format": 1, "id": "check-tests", "task": TASK | task})
    )
    lab.federation_with()
    return lab


BROKEN: dict[str, tuple[Callable[[Arrays], Any], str, str, str, str]] = {
    "duplicate": (
        lambda a: a["train_images"].__setitem__(3, a["train_images"][5]),
        "warning", "duplicate", "the same image is listed 2 times in training",
        "scans.npz: train image 3; scans.npz: train image 5",
    ),
    "duplicate in two parts": (
        lambda a: a["val_images"].__setitem__(0, a["train_images"][3]),
        "error", "duplicate", "the same image is in training and validation",
        "scans.npz: train image 3; scans.npz: val image 0",
    ),
    "unknown class": (
        lambda a: a["train_labels"].__setitem__(3, 2),
        "error", "unknown label", "class 2 is unknown; task.labels has normal, pneumonia", "scans.npz: train image 3",
    ),
    "constant": (
        lambda a: a["train_images"].__setitem__(3, 0),
        "warning", "constant", "every voxel of the image is 0", "scans.npz: train image 3",
    ),
    "colour": (
        lambda a: a.update(train_images=np.stack([a["train_images"]] * 3, -1)[:1],
                           train_labels=a["train_labels"][:1], val_labels=a["val_labels"] * 0),
        "error", "channels", "the image has 3 channels; task.channels says 1", "scans.npz: train image 0",
    ),
    "a class that validation lacks": (
        lambda a: a.update(val_labels=a["val_labels"] * 0),
        "warning", "absent label", "no validation case has label 1 (pneumonia)", "",
    ),
    "one subject in two parts": (
        lambda a: a.update(train_subjects=np.array([f"t{n}" for n in range(7)] + ["p"]),
                           val_subjects=np.array(["v0", "v1", "v2", "p"])),
        "error", "subject", "subject p is in training and validation",
        "scans.npz: train image 7; scans.npz: val image 3",
    ),
    "names in another order": (
        lambda a: a.update(classes=np.array(["normal", "tumour"])),
        "error", "label map", "label 1 is 'tumour' in the data's own listing, here 'pneumonia' is agreed", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_array_is_found(classes: Any, only: Any, arrays: Arrays, name: str) -> None:
    breaks, level, kind, what, where = BROKEN[name]
    breaks(arrays)
    np.savez(classes.folder / "data" / "scans.npz", **arrays)
    found = only(classes.check(), level, kind)
    assert found.what == what
    assert where is None or found.where == where


def test_good_arrays_are_ready_and_tried(classes: Any, arrays: Arrays) -> None:
    np.savez(classes.folder / "data" / "scans.npz", **arrays)
    report = classes.check(quick=False)
    assert [f for f in report.findings if f.level in ("error", "warning") and f.kind != "clock"] == []
    assert report.facts["labels"]["pneumonia"] == {"cases": {"training": 4, "validation": 2}}
    assert report.facts["seconds_per_step"] > 0


@pytest.fixture
def pictures(classes: Any, arrays: Arrays) -> Any:
    for part in ("train", "val"):
        for number, image in enumerate(arrays[f"{part}_images"]):
            folder = classes.folder / "data" / part / TASK["labels"][number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    return classes


def test_good_pictures_are_ready(pictures: Any) -> None:
    report = pictures.check()
    assert [f for f in report.findings if f.level in ("error", "warning") and f.kind != "clock"] == []


def test_a_picture_that_cannot_be_read(pictures: Any, only: Any) -> None:
    broken = pictures.folder / "data" / "train" / "normal" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    found = only(pictures.check(), "error", "unreadable")
    assert found.what.startswith("the image is not readable (")
    assert found.where.endswith("image 2 (2.png)")


def test_a_class_that_nobody_agreed_on(pictures: Any, only: Any) -> None:
    shutil.copytree(pictures.folder / "data" / "train" / "normal", pictures.folder / "data" / "train" / "tumour")
    report = pictures.check()
    errors = [f for f in report.findings if f.level == "error"]
    assert {f.what for f in errors} == {"class 'tumour' is unknown; task.labels has normal, pneumonia"}
    assert len(errors) == 4


def test_several_classes_where_they_exclude_each_other(classes: Any, only: Any, arrays: Arrays) -> None:
    for part in ("train", "val"):
        arrays[f"{part}_labels"] = np.hstack([1 - arrays[f"{part}_labels"], arrays[f"{part}_labels"]])
    arrays["train_labels"][3] = 1
    np.savez(classes.folder / "data" / "scans.npz", **arrays)
    assert only(classes.check(), "error", "classes").what == ("2 classes; several at once need task.multi_label = true")
    classes.federation_with(multi_label=True)
    assert classes.check().ready
