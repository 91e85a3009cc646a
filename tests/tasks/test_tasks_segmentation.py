"""Segmentation: what it refuses at start, what its batches are, and that Dice is MONAI's Dice."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric

from braintorrent import plugins
from braintorrent.errors import ConfigError, DataError
from braintorrent.tasks._options import Options
from braintorrent.tasks._pipeline import Segmenter


def open_task(options: dict[str, Any], folder: Path) -> Any:
    return plugins.load("tasks", "segmentation").open_task(options, folder, "cpu", "federation.toml: task")


def save_singular(path: Path, array: np.ndarray) -> None:
    """A file whose third axis points nowhere."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256], raw[312:328] = bytes([0, 0, 2, 0]), bytes(16)  # qform_code, sform_code; srow_z
    path.write_bytes(gzip.compress(bytes(raw)))


def save(folder: Path, name: str, array: np.ndarray) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": "UNett"}, "network: no class 'UNett'.*UNet"),
        ({"network": "nn"}, "network: no class 'nn'"),
        ({"network_args": {"chanels": [4]}}, "network_args: unknown argument 'chanels'; allowed: .*channels"),
        ({"network_args": {"channels": [4, 8], "strides": []}}, "network_args: "),
        ({"network_args": {"channels": [4, 8], "strides": [2], "out_channels": 2}}, "do not work on a patch"),
        ({"patch": [13, 12, 12]}, "do not work on a patch"),
        ({"patch": [12, 12]}, "patch: .*3 sizes"),
        ({"spacing": [1.0, 1.0]}, "spacing: .*3 sizes"),
        ({"loss": "DiceLos"}, "loss: no class 'DiceLos'.*DiceLoss"),
        ({"loss_args": {"sigmoyd": True}}, "loss_args: unknown argument 'sigmoyd'"),
        ({"optimiser": "Adm"}, "optimiser: no class 'Adm'.*Adam"),
        ({"optimiser_args": {"momentum": 0.9}}, "optimiser_args: unknown argument 'momentum'"),
        ({"lr": 0.0}, "lr: "),
        ({"labels": ["background", "$__import__('os')"]}, "labels: .*a name begins with none of"),
        ({"modality": ["@device"]}, "modality: .*a name begins with none of"),
        ({"labels": ["background", "a\x1b[2J"]}, "labels: .*no control characters"),
        (
            {"network": "HoVerNet", "network_args": {"pretrained_url": "file:///model.pt"}},
            "network_args: pretrained_url: would load a file; start.weights names",
        ),
        ({"loss_args": {"nested": {"Checkpoint": "a.pt"}}}, "loss_args.nested: Checkpoint: would load a file"),
        ({"optimiser_args": {"path": "a.pt"}}, "optimiser_args: path: would load a file"),
        ({"batchsize": 2}, "batchsize: unknown key; allowed: .*batch"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], folder: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^federation.toml: task: .*{said}") as caught:
        open_task(options | change, folder)
    assert "\n" not in str(caught.value)


def test_scans_that_cannot_be_used_are_refused_without_their_names(
    options: dict[str, Any], folder: Path, rewrite: Any
) -> None:
    def refused(said: str) -> None:
        with pytest.raises(DataError, match=said) as caught:
            open_task(options, folder)
        assert "\n" not in str(caught.value)
        assert "training0" not in str(caught.value)  # a file name may be a patient's

    image, label = folder / "imagesTr" / "training0.nii.gz", folder / "labelsTr" / "training0.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    refused("training case 0: the image file is not readable")
    image.unlink()
    refused("training case 0: the image file is missing")
    image.write_bytes(whole)
    save(folder, "labelsTr/training0.nii.gz", np.zeros((16, 18, 13), np.uint8))
    refused("training case 0: image 16 x 18 x 14 and label 16 x 18 x 13 differ in shape")
    save(folder, "labelsTr/training0.nii.gz", np.full((16, 18, 14), 3, np.uint8))
    refused("training case 0: label value 3 is unknown; task.labels has 0 to 2")
    save(folder, "labelsTr/training0.nii.gz", np.ones((16, 18, 14), np.uint8))
    save(folder, "imagesTr/training0.nii.gz", np.full((16, 18, 14), np.nan, np.float32))
    refused("not finite")
    save_singular(image, np.zeros((16, 18, 14), np.float32))
    refused("training case 0: the affine in its header is singular or not finite")
    with pytest.raises(DataError, match="scan 1: the affine in its header"):
        Segmenter(Options(**options), torch.device("cpu"))(torch.nn.Identity(), image, "scan 1")
    save(folder, "imagesTr/training0.nii.gz", np.zeros((16, 18, 14), np.float32))
    save_singular(label, np.ones((16, 18, 14), np.uint8))
    refused("training case 0: label: the affine in its header")
    save(folder, "labelsTr/training0.nii.gz", np.ones((16, 18, 14), np.uint8))
    save(folder, "imagesTr/training0.nii.gz", np.zeros((16, 18, 14, 2), np.float32))
    refused("the image has 2 channels; task.channels says 1")
    label.unlink()
    rewrite(folder, training=[], validation=[], test=[])
    refused("no cases in it")
    rewrite(folder, training=["only a path"])
    refused("training case 0: needs an image and a label")
    (folder / "dataset.json").write_text("[")
    refused("dataset.json: not readable")
    (folder / "dataset.json").unlink()
    refused("imagesTr: file 2 by name has none of the same name in labelsTr/")
    (folder / "imagesTr").rename(folder / "scans")
    refused('classes layout: its cases have classes; task.kind = "segmentation" needs a mask file for each')
    for scan in folder.glob("*/*"):
        scan.unlink()
    refused("no known layout; accepted are dataset.json")


def test_a_batch_follows_from_seed_and_step_alone(options: dict[str, Any], folder: Path) -> None:
    task, again = open_task(options, folder), open_task(options, folder)
    for _ in range(3):  # a random state of its own would show
        task.batch(5, 0)
    ours, theirs = task.batch(5, 7), again.batch(5, 7)
    assert torch.equal(ours["image"], theirs["image"])
    assert torch.equal(ours["label"], theirs["label"])
    assert not torch.equal(ours["image"], task.batch(6, 7)["image"])
    assert not torch.equal(ours["image"], task.batch(5, 8)["image"])
    assert ours["image"].shape == ours["label"].shape == (2, 1, 12, 12, 12)
    assert (ours["image"].dtype, ours["label"].dtype) == (torch.float32, torch.uint8)


def test_each_case_is_seen_once_per_epoch(options: dict[str, Any], folder: Path) -> None:
    task = open_task(options | {"batch": 3, "flip": 0.0, "patch": [16, 18, 14], "intensity": 0.0}, folder)
    whole = {case.image.sum().item() for case in task._parts["training"]}
    assert len(whole) == 3
    for step in range(4):
        assert {image.sum().item() for image in task.batch(0, step)["image"]} == whole


@pytest.mark.parametrize(
    ("changes", "fused"), [({}, True), ({"optimiser_args": {"foreach": True}}, None), ({"optimiser": "Adadelta"}, None)]
)
def test_an_optimiser_is_fused_where_it_can_be_and_nobody_chose(
    options: dict[str, Any], folder: Path, changes: dict[str, Any], fused: bool | None
) -> None:
    task = open_task(options | changes, folder)
    assert task.optimiser(task.network(0).parameters()).defaults.get("fused") is fused


def test_dice_is_monais(options: dict[str, Any], folder: Path) -> None:
    task = open_task(options, folder)
    model = task.network(3)
    (prediction,) = task.evaluate(model, "test", arrays=True)
    metric = DiceMetric(include_background=False, num_classes=3, reduction="none")
    per_class = metric(torch.tensor(prediction.output)[None, None], torch.tensor(prediction.truth)[None, None])[0]
    assert prediction.metrics["dice_ball"] == pytest.approx(per_class[0].item())
    assert prediction.metrics["dice_core"] == pytest.approx(per_class[1].item())
    assert prediction.metrics["dice"] == pytest.approx(per_class.mean().item())
    assert prediction.image.shape == (1, 16, 18, 14)
    assert prediction.case == "test case 0"


def test_a_class_absent_from_a_case_does_not_count(options: dict[str, Any], folder: Path) -> None:
    save(folder, "labelsTr/test0.nii.gz", (np.indices((16, 18, 14))[0] < 8).astype(np.uint8))
    task = open_task(options, folder)
    (prediction,) = task.evaluate(task.network(3), "test")
    assert set(prediction.metrics) == {"dice", "dice_ball"}
    assert prediction.metrics["dice"] == prediction.metrics["dice_ball"]


@pytest.mark.parametrize("dims", [2, 3])
def test_it_learns(options: dict[str, Any], folder: Path, dims: int) -> None:
    task = open_task(options | {"dims": dims, "patch": [12] * dims, "lr": 0.01}, folder)
    model = task.network(0)
    optimiser = task.optimiser(model.parameters())
    before = task.evaluate(model, "test")[0].metrics["dice"]
    model.train()
    for step in range(120):
        optimiser.zero_grad()
        task.loss(model, task.batch(0, step)).backward()
        optimiser.step()
    after = task.evaluate(model, "test")[0].metrics["dice"]
    assert after > before + 0.3


def test_spacing_and_orientation_are_brought_to_one_form(options: dict[str, Any], folder: Path) -> None:
    import nibabel

    for name in ("imagesTr/test0.nii.gz", "labelsTr/test0.nii.gz"):
        stored = nibabel.load(folder / name)
        flipped = nibabel.Nifti1Image(np.asarray(stored.dataobj)[::-1], np.diag([-2.0, 1.0, 1.0, 1.0]))
        nibabel.save(flipped, folder / name)
    task = open_task(options | {"spacing": [1.0, 1.0, 1.0]}, folder)
    (prediction,) = task.evaluate(task.network(0), "test", arrays=True)
    assert prediction.truth.shape == (31, 18, 14)
    whole = open_task(options, folder).evaluate(task.network(0), "test", arrays=True)[0].truth
    assert whole.shape == (16, 18, 14)
    assert np.array_equal(prediction.truth[::2], whole)


def test_scans_smaller_than_a_patch_are_padded(options: dict[str, Any], folder: Path) -> None:
    task = open_task(options | {"patch": [20, 20, 20]}, folder)
    assert task.batch(0, 0)["image"].shape == (2, 1, 20, 20, 20)
    assert task.evaluate(task.network(0), "validation")[0].metrics["dice"] >= 0


def test_what_the_listing_lacks_is_dealt_out_of_its_training_cases(
    options: dict[str, Any], folder: Path, rewrite: Any, tmp_path: Path
) -> None:
    rewrite(folder, validation=[], test=["imagesTs/unlabelled.nii.gz"])

    def names() -> list[list[str]]:
        opened = plugins.load("tasks", "segmentation").open_task(
            options, folder, "cpu", "task", tmp_path / "state" / "split.json"
        )
        return [[case.name for case in opened.cases(part)] for part in ("training", "validation", "test")]

    dealt = names()
    assert sorted(name for part in dealt for name in part) == [f"training case {number}" for number in range(3)]
    assert [len(part) for part in dealt] == [1, 1, 1]
    assert names() == dealt


def test_a_part_without_cases_is_empty(options: dict[str, Any], folder: Path, rewrite: Any) -> None:
    rewrite(folder, test=["imagesTs/unlabelled.nii.gz"])
    task = open_task(options, folder)
    assert task.evaluate(task.network(0), "test") == []
    assert task.summary([]) == {}


@pytest.mark.parametrize(
    ("listed", "agreed", "said"),
    [
        ({"labels": {"0": "background", "1": "core"}}, {}, "dataset.json maps 1 to core, task.labels to ball"),
        ({"labels": {"background": 0, "BALL": 1, "tail": 2}}, {}, "dataset.json maps 2 to tail, task.labels to core"),
        ({"modality": {"0": "CT"}}, {"modality": ["T1"]}, "dataset.json maps 0 to CT, task.modality to T1"),
        ({"modality": {"0": "T1", "1": "T2"}}, {}, "has 2 channels in its modality; task.channels says 1"),
        ({"labels": {"0": "background", "2": "core"}}, {}, "labels: value 1 has no name; name every value from 0 up"),
    ],
)  # fmt: skip
def test_a_listing_that_names_things_otherwise_is_refused(
    options: dict[str, Any], folder: Path, rewrite: Any, listed: dict[str, Any], agreed: dict[str, Any], said: str
) -> None:
    rewrite(folder, **listed)
    with pytest.raises(DataError, match=f"^{folder}.*{said}$"):
        open_task(options | agreed, folder)


def test_modality_names_every_channel(options: dict[str, Any], folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"modality: .*names 2 channels, channels says 1"):
        open_task(options | {"modality": ["T1", "T2"]}, folder)


def test_classes_are_no_masks(options: dict[str, Any], folder: Path) -> None:
    (folder / "dataset.json").unlink()
    (folder / "cases.csv").write_text("image,label\nimagesTr/training0.nii.gz,ball\n")
    with pytest.raises(
        DataError, match=r'its cases have classes; task.kind = "segmentation" needs a mask file for each'
    ):
        open_task(options, folder)


def test_the_same_seed_gives_the_same_network(options: dict[str, Any], folder: Path) -> None:
    task = open_task(options, folder)
    first, second, other = task.network(1), task.network(1), task.network(2)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
