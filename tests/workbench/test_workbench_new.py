"""`new`: on each layout a federation.toml that opens a learner; what it concludes from headers; what it refuses."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from braintorrent.config import load_federation, load_peer
from braintorrent.errors import ConfigError, DataError
from braintorrent.learning import open_learner
from braintorrent.methods import Method
from braintorrent.workbench.proposing import new
from braintorrent.workbench.proposing_choices import class_weights, fitting_patch, fitting_size

SHAPE = (12, 20, 9)
CASES = 6


def scan(path: Path, shape: tuple[int, ...] = SHAPE, spacing: tuple[float, ...] = (1, 1, 1), axes: str = "RAS") -> Path:
    """Noise; `shape` and `spacing` along the axes as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = nibabel.orientations.inv_ornt_aff(
        nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt(axes), nibabel.orientations.axcodes2ornt("RAS")
        ),
        shape[:3],
    )
    affine = np.linalg.inv(affine) @ np.diag([*spacing, 1])
    values = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def mask(path: Path, top: float = 2, shape: tuple[int, ...] = SHAPE) -> Path:
    """A cube of 1 with a core of `top`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(shape, np.float32)
    values[2:8, 2:8, 2:8], values[4:6, 4:6, 4:6] = min(top, 1), top
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def picture(path: Path, colours: int = 1, size: tuple[int, int] = (24, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 255, (*size[::-1], colours), np.uint8)
    Image.fromarray(noise.squeeze()).save(path)
    return path


def decathlon(data: Path, **described: object) -> Path:
    cases = [{"image": f"i/{n}.nii.gz", "label": f"l/{n}.nii.gz"} for n in range(CASES)]
    for case in cases:
        scan(data / case["image"])
        mask(data / case["label"])
    whole = {"labels": {"0": "background", "1": "head", "2": "tail"}, "modality": {"0": "MRI"}, **described}
    (data / "dataset.json").write_text(json.dumps({**whole, "training": cases}))
    return data


def folders(data: Path) -> Path:
    for n in range(CASES):
        scan(data / "images" / f"{n}.nii.gz")
        mask(data / "labels" / f"{n}.nii.gz")
    return data


def manifest(data: Path) -> Path:
    for n in range(CASES):
        scan(data / f"{n}.nii.gz")
        mask(data / f"{n}-mask.nii.gz")
    rows = "".join(f"{n}.nii.gz,{n}-mask.nii.gz,p{n}\n" for n in range(CASES))
    (data / "cases.csv").write_text(f"image,label,subject\n{rows}")
    return data


def finding_table(data: Path) -> Path:
    for n in range(8):
        picture(data / f"{n}.png")
    labels = ["a", "b", "a|b", "-", "a", "b", "a", "b"]
    rows = "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels))
    (data / "cases.csv").write_text(f"image,label\n{rows}")
    return data


def classes(data: Path) -> Path:
    for n in range(8):
        picture(data / ("well" if n % 2 else "ill") / f"{n}.png", colours=3)
    return data


def medmnist(data: Path) -> Path:
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{kind}": rng.integers(0, 255, (count, 16, 24), np.uint8) if kind == "images"
        else (np.arange(count)[:, None] % 5 > 0).astype(np.uint8)
        for part, count in (("train", 40), ("val", 10)) for kind in ("images", "labels")
    }  # fmt: skip
    np.savez(data / "some.npz", **arrays)
    return data


def dicom(data: Path) -> Path:
    """Slices of 12 columns and 20 rows, 4 mm apart, with 1 mm pixels."""
    for n in range(CASES):
        series = generate_uid()
        for z in range(9):
            one = Dataset()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
            one.PatientID, one.SeriesInstanceUID, one.InstanceNumber, one.Modality = f"p{n}", series, z + 1, "MR"
            one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 4 * z], [-1, 0, 0, 0, -1, 0]
            one.PixelSpacing, one.SliceThickness, one.Columns, one.Rows = [1, 1], 4, 12, 20
            one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
            one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
            one.PixelData = np.random.default_rng(z).integers(0, 100, (20, 12), np.uint16).tobytes()
            (data / f"case{n}").mkdir(parents=True, exist_ok=True)
            one.save_as(data / f"case{n}" / f"{z}.dcm", enforce_file_format=True)
        label = mask(data / f"case{n}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(nibabel.load(label).get_fdata(), np.diag([1, 1, 4, 1])), label)
    return data


def by_value(count: int) -> list[str]:
    return ["background", *(f"label-{n}" for n in range(1, count + 1))]


LAYOUTS = {
    decathlon: {"labels": ["background", "head", "tail"], "modality": ["MRI"], "dims": 3, "patch": [8, 16, 8]},
    folders: {"labels": by_value(2), "dims": 3, "patch": [8, 16, 8]},
    manifest: {"labels": by_value(2), "channels": 1, "steps": 12},
    dicom: {"labels": by_value(2), "dims": 2, "patch": [8, 16]},
    finding_table: {"labels": ["a", "b"], "multi_label": True, "size": [24, 16]},
    classes: {"labels": ["ill", "well"], "channels": 3, "size": [24, 16]},
    medmnist: {"labels": ["class-0", "class-1"], "channels": 1, "size": [24, 16], "class_weights": [2.5, 0.625]},
}


@pytest.mark.parametrize(("layout", "expected"), LAYOUTS.items(), ids=lambda given: getattr(given, "__name__", ""))
def test_each_layout_gives_a_federation_that_trains(
    tmp_path: Path, layout: Callable[[Path], Path], expected: dict[str, object]
) -> None:
    folder = tmp_path / "lab-a"
    new(folder, layout(tmp_path / "data"), name="lab-a")
    federation, peer = load_federation(folder / "federation.toml"), load_peer(folder)
    assert {key: federation.task.get(key) for key in expected} == expected
    assert federation.kind == ("segmentation" if "patch" in federation.task else "classification")
    learner = open_learner(federation, peer, folder, Method())
    steps: list[int] = []
    report = learner.train(lambda: len(steps) == 2, lambda step, of: steps.append(step))
    assert report.steps == 2
    assert np.isfinite(report.loss)
    assert learner.evaluate()


def test_every_value_has_its_reason_above_it(tmp_path: Path) -> None:
    proposal = new(tmp_path / "Lab A", decathlon(tmp_path / "data"))
    text = proposal.federation.read_text()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), line
    whole = tomllib.loads(text)
    assert whole["id"].startswith("lab-a-")
    for choice in proposal.choices:
        value = whole
        for key in choice.key.split("."):
            value = value[key]
        assert value == choice.value
    again = new(tmp_path / "other", tmp_path / "data")
    assert load_federation(again.federation).id != whole["id"]


def proposed(tmp_path: Path, scans: list[Path]) -> dict[str, object]:
    rows = "".join(f"{path},{mask(path.with_name(f'{n}-mask.nii.gz'))}\n" for n, path in enumerate(scans))
    (tmp_path / "cases.csv").write_text(f"image,label\n{rows}")
    proposal = new(tmp_path / "lab", tmp_path / "cases.csv")
    return load_federation(proposal.federation).task


def test_thick_slices_want_a_network_on_slices(tmp_path: Path) -> None:
    task = proposed(tmp_path, [scan(tmp_path / f"{n}.nii.gz", (200, 150, 9), (1, 1, 5)) for n in range(3)])
    assert (task["dims"], "spacing" in task) == (2, False)
    assert task["patch"] == [128, 128]


def test_thick_along_another_axis_stays_a_volume(tmp_path: Path) -> None:
    """A 2-D network sees slices from the top; a sagittal scan's thick slices lie across those."""
    task = proposed(tmp_path, [scan(tmp_path / f"{n}.nii.gz", (9, 40, 50), (5, 1, 1)) for n in range(3)])
    assert (task["dims"], task["patch"]) == (3, [8, 40, 48])


def test_axes_are_counted_as_tasks_see_them(tmp_path: Path) -> None:
    stored = [scan(tmp_path / f"{n}.nii.gz", (9, 40, 24), (1, 1, 1), axes="SRA") for n in range(3)]
    assert proposed(tmp_path, stored)["patch"] == [40, 24, 8]


def test_spacings_that_differ_are_resampled_to_the_median(tmp_path: Path) -> None:
    sizes = [(1, 1, 1), (1, 1, 2), (1, 1, 2)]
    task = proposed(tmp_path, [scan(tmp_path / f"{n}.nii.gz", (24, 24, 24), s) for n, s in enumerate(sizes)])
    assert task["spacing"] == [1.0, 1.0, 2.0]
    near = [(1, 1, 1), (1, 1, 1.04), (1, 1, 1)]
    other = tmp_path / "near"
    task = proposed(other, [scan(other / f"{n}.nii.gz", (24, 24, 24), s) for n, s in enumerate(near)])
    assert "spacing" not in task


def test_channels_of_a_scan(tmp_path: Path) -> None:
    assert proposed(tmp_path, [scan(tmp_path / f"{n}.nii.gz", (*SHAPE, 2)) for n in range(3)])["channels"] == 2


def test_sizes_fit() -> None:
    assert fitting_patch((35, 51, 35), 48**3) == [32, 48, 32]
    assert fitting_patch((512, 512, 20), 48**3) == [80, 80, 16]
    assert fitting_patch((5, 5, 5), 48**3) == [8, 8, 8]
    assert fitting_size((28, 28), 128**2) == [28, 28]
    assert fitting_size((1024, 512), 128**2) == [181, 90]
    assert class_weights((0.1, 0.9), several=False) == [5.0, 0.556]
    assert class_weights((0.001, 0.5), several=True) == [10.0, 1.0]


@pytest.mark.parametrize(("top", "said"), [
    (0, "the 6 masks looked at are empty"), (0.5, "whole numbers"), (255, "mask value 255; labels are 0"),
])  # fmt: skip
def test_masks_that_are_none(tmp_path: Path, top: float, said: str) -> None:
    data = folders(tmp_path / "data")
    for n in range(CASES):
        mask(data / "labels" / f"{n}.nii.gz", top)
    with pytest.raises(DataError, match=said):
        new(tmp_path / "lab", data)
    assert not (tmp_path / "lab").exists()


def test_a_scan_that_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    data = manifest(tmp_path / "data")
    (data / "3.nii.gz").write_bytes(b"no scan")
    with pytest.raises(DataError, match=r"row 5: the image is not readable.*accepted are NIfTI") as caught:
        new(tmp_path / "lab", data)
    assert "3.nii" not in str(caught.value)


def test_scans_of_one_kind_only(tmp_path: Path) -> None:
    data = manifest(tmp_path / "data")
    scan(data / "2.nii.gz", (*SHAPE, 3))
    with pytest.raises(DataError, match=r"row 4: 3 channels, where .*row 2 has 1"):
        new(tmp_path / "lab", data)
    flat = classes(tmp_path / "flat")
    scan(flat / "ill" / "volume.nii.gz")
    with pytest.raises(DataError, match="flat images and volumes are mixed"):
        new(tmp_path / "lab", flat)
    one = tmp_path / "one"
    picture(one / "ill" / "a.png")
    with pytest.raises(DataError, match="one class only"):
        new(tmp_path / "lab", one)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    data, folder = decathlon(tmp_path / "data"), tmp_path / "lab"
    new(folder, data)
    before = {path: path.read_text() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        new(folder, data)
    assert {path: path.read_text() for path in folder.iterdir()} == before


def test_peers_side_by_side_listen_on_different_ports(tmp_path: Path) -> None:
    data = decathlon(tmp_path / "data")
    found = [new(tmp_path / name, data).listen for name in ("a", "b")]
    assert load_peer(tmp_path / "b").name == "b", "two labs on one machine are told apart"
    assert found == ["0.0.0.0:47100", "0.0.0.0:47101"]
    assert new(tmp_path / "c", data, listen="127.0.0.1:47102").listen == "127.0.0.1:47102"
    assert load_peer(tmp_path / "c").listen == "127.0.0.1:47102"
    with pytest.raises(ConfigError, match="name"):
        new(tmp_path / "d", data, name="no such name")
    assert not (tmp_path / "d").exists()


def test_joining_copies_the_federation_unchanged(tmp_path: Path) -> None:
    data = decathlon(tmp_path / "data")
    first = new(tmp_path / "a", data)
    agreed = first.federation.read_text().replace("seed = 0", 'seed = 0\nweights = "start.safetensors"')
    first.federation.write_text(agreed)
    with pytest.raises(ConfigError, match=r"start\.weights: start\.safetensors is not beside it"):
        new(tmp_path / "b", data, federation=first.federation)
    assert not (tmp_path / "b").exists()
    (tmp_path / "a" / "start.safetensors").write_bytes(b"weights")
    joined = new(tmp_path / "c", data, "lab-c", federation=first.federation)
    assert joined.federation.read_text() == agreed
    assert (tmp_path / "c" / "start.safetensors").read_bytes() == b"weights"
    assert joined.choices == ()
    assert load_peer(tmp_path / "c").name == "lab-c"


@pytest.mark.parametrize(("layout", "said"), [
    (lambda data: decathlon(data, labels={"0": "Background", "1": "tail", "2": "head"}),
     "maps 1 to head, this data to tail"),
    (lambda data: decathlon(data, labels={"0": "background", "1": "head", "2": "tail", "3": "more"}),
     "maps 3 to nothing, this data to more"),
    (classes, "task.kind: the federation does segmentation, this data has classes"),
    (folders, None),
    (lambda data: decathlon(data, labels={"0": "Background", "1": "HEAD", "2": "Tail"}), None),
])  # fmt: skip
def test_data_that_joins_must_fit(tmp_path: Path, layout: Callable[[Path], Path], said: str | None) -> None:
    first = new(tmp_path / "a", decathlon(tmp_path / "data"))
    other = layout(tmp_path / "other")
    if said is None:
        assert new(tmp_path / "b", other, federation=first.federation).federation.exists()
        return
    with pytest.raises(DataError, match=said):
        new(tmp_path / "b", other, federation=first.federation)
    assert not (tmp_path / "b").exists()


def test_a_lab_may_lack_a_class_but_have_no_other(tmp_path: Path) -> None:
    first = new(tmp_path / "a", classes(tmp_path / "data"))
    less, more = tmp_path / "less", classes(tmp_path / "more")
    federation = first.federation.read_text().replace('["ill", "well"]', '["ill", "odd", "well"]')
    first.federation.write_text(federation)
    new(tmp_path / "b", classes(less), federation=first.federation)
    picture(more / "strange" / "1.png", colours=3)
    with pytest.raises(DataError, match="no 'strange', which this data has; there are ill, odd, well"):
        new(tmp_path / "c", more, federation=first.federation)
    grey = tmp_path / "grey"
    for name in ("ill", "well"):
        picture(grey / name / "1.png")
    with pytest.raises(DataError, match=r"task\.channels: the federation has 3, these images have 1"):
        new(tmp_path / "d", grey, federation=first.federation)
