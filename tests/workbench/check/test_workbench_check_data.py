"""Every check of the data finds its broken twin, with these words, and nothing else is an error."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from braintorrent.tasks.layouts import Entry, open_dataset
from braintorrent.tasks.layouts.reading import Scan
from braintorrent.workbench.check_data import Case, _check_affine, _parts
from braintorrent.workbench.check_findings import Group
from tests.tasks.dicoms import save_series

TURNED = np.array([[-1.0, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def moved(millimetres: float, spacing: float = 1.0) -> np.ndarray:
    affine = np.diag([spacing, 1.0, 1.0, 1.0])
    affine[0, 3] = millimetres
    return affine


def same(array: np.ndarray) -> np.ndarray:
    return array


def with_value(value: float, dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    def put(array: np.ndarray) -> np.ndarray:
        array = array.astype(dtype)
        array[1, 2, 3] = value
        return array

    return put


def truncated(path: Any) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def twice(lab: Any, name: str, other: str) -> None:
    shutil.copyfile(lab.image(name), lab.image(other))


def widened(lab: Any, name: str) -> None:
    for path in (lab.image(name), lab.label(name)):
        lab.change(path, lambda array: np.concatenate([array] * 3))


def respaced(lab: Any, name: str) -> None:
    for path in (lab.image(name), lab.label(name)):
        lab.change(path, same, moved(0, spacing=3.0))


def flattened(lab: Any, name: str) -> None:
    """One affine for both; a header may say anything, so it is written as bytes."""
    for path in (lab.image(name), lab.label(name)):
        lab.change(path, same, np.diag([1.0, 1.0, 1.0, 1.0]))
        stored = bytearray(gzip.decompress(path.read_bytes()))
        struct.pack_into("<12f", stored, 280, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0)  # the sform's three rows
        path.write_bytes(gzip.compress(bytes(stored)))


BROKEN: dict[str, tuple[Callable[[Any], Any], str, str, str]] = {
    "image truncated": (
        lambda lab: truncated(lab.image("training2")),
        "error", "unreadable", "the image is not readable (EOFError)",
    ),
    "image missing": (
        lambda lab: lab.image("training2").unlink(),
        "error", "unreadable", "the image is missing",
    ),
    "label is no scan": (
        lambda lab: lab.label("training2").write_bytes(b"not a scan"),
        "error", "unreadable", "the label is not readable (ImageFileError)",
    ),
    "shape": (
        lambda lab: lab.change(lab.label("training2"), lambda array: array[:, :, :-1]),
        "error", "shape", "image 12 x 14 x 10 and label 12 x 14 x 9 differ in shape",
    ),
    "label moved": (
        lambda lab: lab.change(lab.label("training2"), same, moved(3)),
        "error", "affine", "the label lies up to 3 voxels (3 mm) from its image",
    ),
    "label turned": (
        lambda lab: lab.change(lab.label("training2"), same, TURNED),
        "error", "affine", "the label lies up to 11 voxels (11 mm) from its image; orientation RAS and LAS",
    ),
    "label moved a little": (
        lambda lab: lab.change(lab.label("training2"), same, moved(0.25)),
        "warning", "affine", "the label lies up to 0.25 voxels (0.25 mm) from its image",
    ),
    "channels of the label": (
        lambda lab: lab.change(lab.label("training2"), lambda array: np.stack([array, array], -1)),
        "error", "channels", "the label has 2 channels; a mask has one",
    ),
    "channels": (
        lambda lab: lab.change(lab.image("training2"), lambda array: np.stack([array, array], -1)),
        "error", "channels", "the image has 2 channels; task.channels says 1",
    ),
    "not finite": (
        lambda lab: lab.change(lab.image("training2"), with_value(np.nan, np.float32)),
        "error", "not finite", "1 voxels of the image are not finite (NaN or infinite)",
    ),
    "unknown label": (
        lambda lab: lab.change(lab.label("training2"), with_value(7, np.uint8)),
        "error", "unknown label", "label values 7 are unknown; task.labels has 0 to 2",
    ),
    "half a label": (
        lambda lab: lab.change(lab.label("training2"), with_value(1.5, np.float32)),
        "error", "unknown label", "label values 1.5 are unknown; task.labels has 0 to 2",
    ),
    "empty mask": (
        lambda lab: lab.change(lab.label("training2"), np.zeros_like),
        "warning", "empty mask", "no voxel is labelled",
    ),
    "constant": (
        lambda lab: lab.change(lab.image("training2"), np.ones_like),
        "warning", "constant", "every voxel of the image is 1",
    ),
    "duplicate": (
        lambda lab: twice(lab, "training0", "training2"),
        "warning", "duplicate", "the same image is listed 2 times in training",
    ),
    "duplicate in two parts": (
        lambda lab: twice(lab, "validation0", "training2"),
        "error", "duplicate", "the same image is in training and validation",
    ),
    "spacing": (
        lambda lab: respaced(lab, "training2"),
        "warning", "spacing", "spacing 3 x 1 x 1 mm; the median is 1 x 1 x 1",
    ),
    "size": (
        lambda lab: widened(lab, "training2"),
        "warning", "size", "size 36 x 14 x 10 voxels; the median is 12 x 14 x 10",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_case_is_found(lab: Any, only: Any, name: str) -> None:
    breaks, level, kind, what = BROKEN[name]
    breaks(lab)
    finding = only(lab.check(), level, kind)
    assert finding.what == what
    assert "training2.nii.gz" in finding.where
    assert finding.do


def test_a_good_lab_is_ready(lab: Any) -> None:
    report = lab.check()
    assert [f for f in report.findings if f.level in ("error", "warning") and f.kind != "clock"] == []
    assert report.ready
    assert report.facts["cases"]["training"] == 6
    assert report.facts["labels"]["core"]["cases"] == {"training": 6, "validation": 2}
    assert report.facts["median_size"] == [12, 14, 10]


def test_all_faults_are_found_at_once(lab: Any) -> None:
    truncated(lab.image("training0"))
    truncated(lab.label("training0"))
    lab.change(lab.label("training1"), with_value(7, np.uint8))
    lab.change(lab.label("validation0"), same, moved(3))
    report = lab.check()
    assert sorted(f.kind for f in report.findings if f.level == "error") == [
        "affine", "unknown label", "unreadable", "unreadable",
    ]  # fmt: skip
    assert report.summary.startswith("4 errors")
    assert report.summary.endswith("not ready")


def test_the_same_subject_in_two_parts(lab: Any, only: Any) -> None:
    lab.listing(training=[*lab.listed("training"), lab.listed("validation")[0]])
    errors = {f.kind: f for f in lab.check().findings if f.level == "error"}
    assert errors.keys() == {"subject", "duplicate"}  # and the cases were read all the same
    assert errors["subject"].what == "subject validation0 is in training and validation"


def test_a_label_map_that_differs(lab: Any, only: Any) -> None:
    lab.listing(labels={"0": "background", "1": "core", "2": "ball"})
    errors = [f for f in lab.check().findings if f.level == "error"]
    assert [f.what for f in errors] == [
        "label 1 is 'core' in the data's own listing, here 'ball' is agreed",
        "label 2 is 'ball' in the data's own listing, here 'core' is agreed",
    ]


def test_a_label_that_a_part_lacks(lab: Any, only: Any) -> None:
    for name in ("validation0", "validation1"):
        lab.change(lab.label(name), lambda array: np.minimum(array, 1))
    assert only(lab.check(), "warning", "absent label").what == "no validation case has label 2 (core)"


def test_no_data(lab: Any, only: Any) -> None:
    shutil.rmtree(lab.folder / "data")
    assert "data" in only(lab.check(), "error", "listing").what
    lab.peer(data="")
    assert only(lab.check(), "error", "data").what == "data: names no folder"


def test_an_affine_that_image_and_label_share_must_hold_all_the_same(lab: Any) -> None:
    flattened(lab, "training2")
    found = [f for f in lab.check().findings if f.level == "error"]
    assert [f.what for f in found] == [
        f"the affine of the {what} makes the volume flat: it cannot be inverted" for what in ("image", "label")
    ]
    assert all("training2" in f.where for f in found)


def test_an_affine_that_is_not_finite(tmp_path: Any) -> None:
    case = Case(Entry("scans: image 1", tmp_path, None, "1"), "training", "scans: image 1")
    group, affine = Group("data"), np.eye(4)
    affine[0, 3] = np.nan
    assert not _check_affine(group, case, Scan(np.zeros((1, 2, 2, 2)), affine, (1.0, 1.0, 1.0)), "image")
    assert group.findings[0].what == "the affine of the image has numbers that are not finite"


@pytest.mark.parametrize(("patients", "warnings"), [("aaaa", 1), ("abcd", 0)])
def test_one_patient_id_for_all_series_is_noticed(tmp_path: Any, patients: str, warnings: int) -> None:
    for number, patient in enumerate(patients):
        save_series(np.zeros((2, 2, 2)), tmp_path / "scans" / f"series{number}", patient)
        (tmp_path / "scans" / f"series{number}.nii.gz").touch()
    group = Group("data")
    _parts(group, open_dataset(tmp_path / "scans"), tmp_path / "split.json")
    assert sum(f.level == "warning" and f.what.startswith("PatientID is empty") for f in group.findings) == warnings
