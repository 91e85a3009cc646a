"""Each layout on real files, and what is said where they are wrong. Messages never tell a file's name or a subject."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image

from braintorrent import plugins
from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, open_dataset
from braintorrent.tasks.layouts.parts import assign
from braintorrent.tasks.layouts.reading import apart
from braintorrent.tasks.layouts.write import write
from tests.tasks.conftest import OPTIONS, ball, save
from tests.tasks.dicoms import save_series

PERSON = "smith_john"


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(path)


def refused(path: Path, said: str) -> None:
    with pytest.raises(DataError) as caught:
        assign(open_dataset(path), None)
    assert str(caught.value) == said
    assert PERSON not in said.removeprefix(str(path))


def mask_folder(folder: Path, images: str = "images", labels: str = "labels", count: int = 3, tail: str = "") -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        image, label = ball(rng)
        save(image, folder / images / f"{PERSON}{number}{tail}.nii.gz")
        save(label, folder / labels / f"{PERSON}{number}.nii.gz")
    return folder


def manifest(folder: Path, *rows: str, name: str = "cases.csv") -> Path:
    (folder / name).write_text("\n".join(rows) + "\n")
    return folder


def learns(data: Path) -> None:
    """A training step on what was listed."""
    task = plugins.load("tasks", "segmentation").open_task(OPTIONS, data, "cpu", "task")
    assert task.samples == 1
    model = task.network(0).train()
    loss = task.loss(model, task.batch(0, 0))
    loss.backward()
    assert np.isfinite(loss.item())


def test_folders_are_matched_by_name(tmp_path: Path) -> None:
    found = open_dataset(mask_folder(tmp_path))
    assert (found.layout, len(found.entries)) == ("folders", 3)
    for entry in found.entries:
        assert isinstance(entry.image, Path)
        assert isinstance(entry.label, Path)
        assert entry.image.name == entry.label.name == f"{entry.subject}.nii.gz"
    learns(tmp_path)


def test_nnunet_folders_with_their_names(tmp_path: Path) -> None:
    mask_folder(tmp_path, "imagesTr", "labelsTr", tail="_0000")
    described = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "ball": 1, "core": 2}, "numTraining": 3}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    found = open_dataset(tmp_path)
    assert (found.layout, found.labels, found.modality) == ("folders", ("background", "ball", "core"), ("T1",))
    assert [entry.subject for entry in found.entries] == [f"{PERSON}{number}" for number in range(3)]
    mask_folder(tmp_path, "imagesTs", "labelsTs", count=1, tail="_0000")
    (tmp_path / "imagesTs" / f"{PERSON}0_0000.nii.gz").rename(tmp_path / "imagesTs" / "other_0000.nii.gz")
    (tmp_path / "labelsTs" / f"{PERSON}0.nii.gz").rename(tmp_path / "labelsTs" / "other.nii.gz")
    assert [entry.part for entry in open_dataset(tmp_path).entries] == ["", "", "", "test"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda f: (f / "labels" / f"{PERSON}1.nii.gz").unlink(), "images: file 2 {}labels/"),
        (lambda f: (f / "images" / f"{PERSON}2.nii.gz").unlink(), "labels: file 3 {}images/"),
        (lambda f: picture(f / "images" / f"{PERSON}0.png"),
         "images: file 2 by name is named as the one before it but for its suffix"),
        (lambda f: save(np.zeros((2, 2, 2)), f / "images" / f"{PERSON}9_0001.nii.gz"),
         "images: file 4 by name is a further channel (_0001); join an image's channels in one file"),
    ],
)  # fmt: skip
def test_folders_that_do_not_match(tmp_path: Path, broken: Callable[[Path], Any], said: str) -> None:
    broken(mask_folder(tmp_path))
    refused(tmp_path, f"{tmp_path}/{said.format('by name has none of the same name in ')}")


def test_a_manifest_of_masks(tmp_path: Path) -> None:
    mask_folder(tmp_path, "mri", "seg")
    rows = [f"mri/{PERSON}{n}.nii.gz,seg/{PERSON}{n}.nii.gz,{part}" for n, part in enumerate(("train", "val", "Test"))]
    manifest(tmp_path, "image,label,split", *rows)
    found = open_dataset(tmp_path)
    assert (found.layout, [entry.part for entry in found.entries]) == ("manifest", ["training", "validation", "test"])
    assert [entry.place for entry in found.entries] == ["row 2", "row 3", "row 4"]
    learns(tmp_path)
    assert open_dataset(tmp_path / "cases.csv") == found


def test_a_manifest_of_classes_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = "﻿Image;Label;subject;site\na.png;edema|nodule;p1;x\nb.png;-;p1;y\nc.png;nodule;p2;y\n;;;\n"
    (tmp_path / "cases.csv").write_text(text, encoding="utf-8")
    found = open_dataset(tmp_path)
    assert [entry.label for entry in found.entries] == [("edema", "nodule"), (), ("nodule",)]
    assert [entry.subject for entry in found.entries] == ["p1", "p1", "p2"]
    (tmp_path / "cases.csv").rename(tmp_path / "cases.tsv")
    (tmp_path / "cases.tsv").write_text(text.replace(";", "\t"), encoding="utf-8")
    assert [entry.label for entry in open_dataset(tmp_path).entries] == [("edema", "nodule"), (), ("nodule",)]


def test_a_subject_is_the_same_however_the_folder_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    manifest(tmp_path / "data", "image,label", *(f"./{number}.png,x" for number in range(8)))
    monkeypatch.chdir(tmp_path)
    spellings = [Path("data"), tmp_path / "data", Path("../" + tmp_path.name) / "data"]
    dealt = [assign(open_dataset(data), tmp_path / "split.json", seed) for seed, data in enumerate(spellings)]
    places = [{part: [entry.place for entry in entries] for part, entries in parts.items()} for parts in dealt]
    assert places[0] == places[1] == places[2]
    assert len(json.loads((tmp_path / "split.json").read_text())["parts"]) == 8


@pytest.mark.parametrize("label", ["masks/{}.raw", "{}.npy", "a|{}.SEG", "{}.odd", "..\\{}"])
def test_a_path_does_not_become_a_class(tmp_path: Path, label: str) -> None:
    (tmp_path / f"{PERSON}.odd").touch()
    manifest(tmp_path, "image,label", f"a.png,{label.format(PERSON)}")
    with pytest.raises(DataError, match="row 2: label looks like a path, not a class; masks end in") as caught:
        open_dataset(tmp_path)
    assert PERSON not in str(caught.value).removeprefix(str(tmp_path))


def test_files_of_one_name_in_several_folders_are_several_subjects(tmp_path: Path) -> None:
    cases = [{"image": f"./sub-{n}/t1.nii.gz", "label": f"sub-{n}/seg.nii.gz"} for n in range(4)]
    cases += [{"image": "sub-0/t2.nii.gz", "label": "sub-0/seg.nii.gz"}]
    cases += [{"image": "sub-5/t1.nii.gz", "label": "sub-5/seg.nii.gz", "subject": "p"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": cases}))
    found = open_dataset(tmp_path)
    assert [entry.subject for entry in found.entries] == [*(f"sub-{n}/t1" for n in range(4)), "t2", "p"]
    assert assign(found, None)["validation"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["image,split", "a.png,test"], "row 1: no column 'label'; needed are image,label, allowed also subject,split"),
        (["image,label,label", "a.png,x,y"], "row 1: column 'label' is there twice"),
        (["image,label,subjcet", "a.png,x,p"], "row 1: column 'subjcet' is unknown; did you mean 'subject'?"),
        (["image,label", "a.png,x", ",", "b.png,x"], "row 3: empty; remove it"),
        (["image,label", "a.png,x", "", "b.png,x"], "row 3: empty; remove it"),
        (["image,label", "a.png,x", "b.png"], "row 3: 1 columns, the header has 2"),
        (["image,label", ",x"], "row 2: the image is empty"),
        (["image,label", "a.png,"], "row 2: the label is empty; - stands for no class"),
        (["image,label", "a.png,x||y"], "row 2: the label has an empty or a repeated class; write a|b for several"),
        (["image,label,split", "a.png,x,trian"], "row 2: the split is none of training, validation, test"),
        (["image,label,subject", "a.png,x,p", "b.png,x,"],
         "row 3: the subject is empty; name one in every row, or leave the column out"),
        (["image,label", "a.png,x", "b.png,x", "a.png,y"], "row 4: the same image as row 2; list each once"),
        (["image,label", "a.png,x", "b.png,b.nii.gz"],
         "row 3: the label is a mask file, in row 2 a class; keep one kind"),
        (["image,label,subject,split", f"a.png,x,{PERSON},train", f"b.png,x,{PERSON},val"],
         "row 3: its subject is in validation here and in training at row 2; keep a subject's cases in one part"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be(tmp_path: Path, rows: list[str], said: str) -> None:
    manifest(tmp_path, *rows)
    refused(tmp_path, f"{tmp_path}/cases.csv: {said}")


def test_a_manifest_must_be_the_only_one_and_text(tmp_path: Path) -> None:
    manifest(tmp_path, "image,label", "a.png,x")
    manifest(tmp_path, "image,label", "a.png,x", name="more.tsv")
    manifest(tmp_path, "age,sex", "1,2", name="participants.csv")  # not a listing of cases
    (tmp_path / "more.tsv").write_text("image\tlabel\na.png\tx\n")
    refused(tmp_path, f"{tmp_path}: 2 CSV or TSV files have a column image; let data = name one")
    (tmp_path / "more.tsv").write_bytes("image\tlabel\nJosé\tx\n".encode("latin-1"))
    refused(tmp_path, f"{tmp_path}/more.tsv: not readable as text in UTF-8 with columns (UnicodeDecodeError)")


def test_folders_of_classes(tmp_path: Path) -> None:
    for name in ("normal/1.png", "normal/2.png", "pneumonia/1.png", "pneumonia/.hidden.png", "pneumonia/notes.txt"):
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("")
    found = open_dataset(tmp_path)
    assert (found.layout, found.labels) == ("classes", ("normal", "pneumonia"))
    assert [entry.label for entry in found.entries] == [("normal",), ("normal",), ("pneumonia",)]
    assert len({entry.subject for entry in found.entries}) == 3  # 1.png of two classes is not one person
    assert found.entries[2].where == f"{tmp_path}: pneumonia image 1"


def test_folders_of_classes_by_part(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            picture(tmp_path / part / name / "1.jpeg")
    found = open_dataset(tmp_path)
    assert found.labels == ("NORMAL", "PNEUMONIA")
    assert [entry.part for entry in found.entries] == ["test"] * 2 + ["training"] * 2 + ["validation"] * 2


def medmnist(path: Path, **arrays: Any) -> Path:
    usual = {f"{part}_images": np.zeros((4, 6, 8), np.uint8) for part in ("train", "val", "test")}
    usual |= {f"{part}_labels": np.array([[0], [1], [0], [1]]) for part in ("train", "val", "test")}
    np.savez(path, **{name: array for name, array in {**usual, **arrays}.items() if array is not None})
    return path


def test_medmnist_has_its_parts(tmp_path: Path) -> None:
    found = open_dataset(medmnist(tmp_path / "set.npz").parent)
    assert (found.layout, len(found.entries)) == ("medmnist", 12)
    parts = assign(found, None)
    assert {part: len(entries) for part, entries in parts.items()} == {"training": 4, "validation": 4, "test": 4}
    assert [entry.label for entry in parts["test"]] == [(0,), (1,), (0,), (1,)]
    several = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]])
    medmnist(tmp_path / "set.npz", train_labels=several, train_subjects=np.array(["p", "p", "q", "r"]))
    training = open_dataset(tmp_path).entries[:4]
    assert [entry.label for entry in training] == [(), (0, 2), (1,), (2,)]
    assert [entry.subject for entry in training] == ["p", "p", "q", "r"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"train_images": None},
         "no train_images in it; a MedMNIST file has train_images, train_labels, val_images, ..."),
        ({"train_labels": None}, "train_labels needs 4 rows of whole numbers, as train_images has"),
        ({"val_labels": np.zeros((3, 1), int)}, "val_labels needs 4 rows of whole numbers, as val_images has"),
        ({"test_labels": np.full((4, 2), 2)}, "test_labels has 2 columns; they hold 0 and 1 only"),
        ({"val_labels": np.array([[0], [1], [2], [1]]), "classes": np.array(["a", "b"])},
         "val_labels go from 0 to 2, classes names 2; name each from 0 up"),
        ({"val_labels": np.array([[0], [1], [-1], [1]])}, "val_labels go from -1 to 1; name each from 0 up"),
        ({"train_images": np.zeros((4, 6))}, "train_images is float64 [4, 6]; needs numbers [N, H, W(, C)]"),
        ({"train_subjects": np.array(["p"])}, "train_subjects has 1 rows, train_images 4"),
        ({"train_labels": np.array([[None]] * 4)}, "not readable as .npz without pickled objects (ValueError)"),
    ],
)  # fmt: skip
def test_a_medmnist_file_that_cannot_be(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    path = medmnist(tmp_path / "set.npz", **arrays)
    refused(path, f"{path}: {said}")


def test_a_medmnist_file_cut_short_or_in_company(tmp_path: Path) -> None:
    path = medmnist(tmp_path / "set.npz")
    path.write_bytes(path.read_bytes()[:100])
    refused(path, f"{path}: not readable as .npz without pickled objects (BadZipFile)")
    medmnist(tmp_path / "other.npz")
    refused(tmp_path, f"{tmp_path}: 2 .npz files; let data = name one")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        image, label = ball(rng)
        save_series(image, tmp_path / f"{PERSON}{number}", f"id{number}")
        save(label, tmp_path / f"{PERSON}{number}.nii.gz")
    return tmp_path


def test_dicom_series_lie_on_their_masks(series: Path) -> None:
    found = open_dataset(series)
    assert (found.layout, [entry.subject for entry in found.entries]) == ("dicom", ["id0", "id1", "id2"])
    task = plugins.load("tasks", "segmentation").open_task(OPTIONS, series, "cpu", "task")
    (case,) = task.cases("training")
    truth, brightest = case.label[0] == 2, case.image[0] > case.image[0].quantile(0.97)
    assert (truth & brightest).sum() > 0.9 * truth.sum()
    learns(series)


def test_two_series_of_one_person_stay_together(series: Path) -> None:
    image, label = ball(np.random.default_rng(1))
    save_series(image, series / "followup", "id1")
    save(label, series / "followup.nii.gz")
    parts = assign(open_dataset(series), None)
    assert sorted(sorted(entry.subject for entry in entries) for entries in parts.values()) in (
        [["id0"], ["id1", "id1"], ["id2"]],
    )


def test_series_that_share_a_placeholder_for_a_person_are_told_apart(tmp_path: Path) -> None:
    for number in range(3):
        save_series(np.zeros((4, 4, 1)), tmp_path / f"scan{number}", "ANON")
        if number == 1:
            assert {entry.subject for entry in open_dataset(tmp_path).entries} == {"ANON"}
    assert [entry.subject for entry in open_dataset(tmp_path).entries] == ["scan0", "scan1", "scan2"]


def test_dicom_that_cannot_be_read(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = series / f"{PERSON}1"
    save_series(np.zeros((4, 4, 1)), folder, "id1", "1.2.3")
    refused(series, f"{series}: case 2 by name: 2 series in one folder; keep one series a folder")
    save_series(np.zeros((4, 4, 14)), folder, "id1", "1.2.3")
    (folder / "notes.txt").write_text("bright")
    refused(series, f"{series}: case 2 by name: file 1 by name in its folder is no DICOM file; move it away")
    for file in folder.glob("*.dcm"):
        file.unlink()
    refused(series, f"{series}: case 2 by name: no DICOM file in the folder; move it away")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(
        series, f"{series}: case 1 by name: a DICOM series needs pydicom to be read; pip install 'braintorrent[dicom]'"
    )


def test_what_is_no_layout(tmp_path: Path) -> None:
    refused(
        tmp_path / "scnas",
        f"{tmp_path}/scnas: no such file or folder; data = names the folder (or file) that holds the scans",
    )
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(DataError, match=r"no known layout; accepted are dataset.json"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("layout", ["masks", "classes", "arrays"])
def test_what_is_written_is_read_again(tmp_path: Path, layout: str) -> None:
    data = tmp_path / "data"
    if layout == "masks":
        mask_folder(data)
    elif layout == "classes":
        for name in ("normal/1.png", "normal/2.png", "pneumonia/1.png"):
            picture(data / name)
    else:
        data.mkdir()
        medmnist(data / "set.npz", train_labels=np.array([[0], [1], [2], [1]]), classes=np.array(["a", "b", "c"]))
    found = open_dataset(data)
    listed = [
        e for part, entries in assign(found, None).items() for e in (replace(entry, part=part) for entry in entries)
    ]
    write(Dataset(found.root, found.layout, tuple(listed), found.labels, ("T1",)), tmp_path / "lab")
    again = open_dataset(tmp_path / "lab")

    def said(entries: Any) -> list[Any]:
        return [(np.asarray(e.image).tolist(), e.label, e.subject, e.part) for e in entries]

    listed = [replace(entry, subject=blake3(entry.subject.encode()).hexdigest()[:16]) for entry in listed]
    assert said(again.entries) == said(sorted(listed, key=lambda e: ("training", "validation", "test").index(e.part)))
    (written,) = (tmp_path / "lab").iterdir()
    assert written.stat().st_mode & 0o777 == 0o600


def test_how_far_a_label_lies_from_its_image_is_told_in_voxels_along_each_axis() -> None:
    flat = np.diag([0.5, 0.5, 5.0, 1.0])
    moved = flat.copy()
    moved[2, 3] = 0.3
    assert apart(flat, moved, (64, 64, 20)) == pytest.approx((0.06, 0.3))
    stretched = np.diag([0.5, 0.5, 5.5, 1.0])
    assert apart(flat, stretched, (64, 64, 21)) == pytest.approx((2.0, 10.0))
