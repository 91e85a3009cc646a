"""Classification: what it refuses, what its batches are, that it learns, and that its metrics are scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from braintorrent import plugins
from braintorrent.errors import ConfigError, DataError

LABELS = ["dark", "left", "right"]
OPTIONS = {
    "kind": "classification", "labels": LABELS, "size": [12, 12], "network": "Classifier", "batch": 8, "steps": 3,
    "network_args": {"channels": [4, 8], "strides": [2, 2], "num_res_units": 0}, "flip": 0.0, "lr": 0.01,
}  # fmt: skip


def pixels(rng: np.random.Generator, *classes: int) -> np.ndarray:
    """Noise with a bright spot on the sides that the classes name."""
    image = rng.integers(0, 60, (12, 12))
    for one in classes:
        if one:
            column = 3 if one == 1 else 9
            image[4:8, column - 2 : column + 2] += 150
    return image.astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A PNG file of 10 subjects per class, in folders by class."""
    rng = np.random.default_rng(0)
    for index, label in enumerate(LABELS):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.fromarray(pixels(rng, index)).save(tmp_path / label / f"{number}.png")
    return tmp_path


def arrays(path: Path, labels: np.ndarray) -> Path:
    """The same images in a MedMNIST file, 24 to train on, 8 to validate on."""
    rng = np.random.default_rng(1)
    several = labels.shape[1] > 1
    images = np.stack([pixels(rng, *(np.flatnonzero(row) + 1 if several else row)) for row in labels])
    np.savez(
        path / "set.npz", train_images=images[:24], train_labels=labels[:24],
        val_images=images[24:], val_labels=labels[24:],
    )  # fmt: skip
    return path


def open_task(options: dict[str, Any], data: Path) -> Any:
    return plugins.load("tasks", "classification").open_task(OPTIONS | options, data, "cpu", "federation.toml: task")


def train(task: Any, steps: int) -> nn.Module:
    model: nn.Module = task.network(0).train()
    optimiser = task.optimiser(model.parameters())
    for step in range(steps):
        optimiser.zero_grad()
        task.loss(model, task.batch(0, step)).backward()
        optimiser.step()
    return model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": "Clasifier"}, "network: no class 'Clasifier'.*Classifier"),
        ({"network_args": {"chanels": [4]}}, "network_args: unknown argument 'chanels'; allowed: .*channels"),
        (
            {"network": "UNet", "network_args": {"channels": [4, 8], "strides": [2]}},
            "network UNet and loss .*the output",
        ),
        ({"loss": "CrossEntropy"}, "loss: no class 'CrossEntropy'.*CrossEntropyLoss"),
        ({"loss": "BCEWithLogitsLoss"}, "network Classifier and loss BCEWithLogitsLoss do not work on an image"),
        ({"loss_args": {"reduction": "none"}}, "the loss is not one number"),
        ({"loss": "MultiLabelSoftMarginLoss", "class_weights": [1.0, 2.0]}, "class_weights: 2 weights for 3 labels"),
        ({"loss": "HuberLoss", "class_weights": "balanced"}, "class_weights: HuberLoss takes none"),
        ({"size": [12]}, "size: "),
        ({"size": [12, 12, 12]}, "size: .*2 sizes"),
        ({"labels": ["one"]}, "labels: classes that exclude each other are at least 2"),
        ({"labels": ["a", "a", "b"]}, "labels: a name is there twice"),
        ({"modality": ["x", "y"]}, "modality: names 2 channels, channels says 1"),
        ({"labels": ["$1", "a", "b"]}, "labels: .*a name begins with none of"),
        ({"network": "DenseNet121", "network_args": {"pretrained": True}}, "network_args: pretrained: would load a"),
        ({"optimiser": "Adm"}, "optimiser: no class 'Adm'.*Adam"),
        ({"learning_rate": 1.0}, "learning_rate: unknown key; allowed: .*lr"),
    ],
)
def test_a_wrong_option_is_named(folder: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^federation.toml: task: .*{said}") as caught:
        open_task(change, folder)
    assert "\n" not in str(caught.value)


def break_file(folder: Path) -> None:
    path = folder / "dark" / "0.png"
    path.write_bytes(path.read_bytes()[:40])


def save_nan(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4), np.nan, np.float32), np.eye(4)), folder / "dark" / "0a.nii.gz")


def save_volume(folder: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), folder / "dark" / "0a.nii.gz")


def write_manifest(row: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "cases.csv").write_text(f"image,label\n{row}\n")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (break_file, "dark image 1: the image file is not readable (UnidentifiedImageError)"),
        (save_nan, "dark image 2: the image has values that are not finite"),
        (save_volume, "dark image 2: the image is a volume; the network takes other ones, task.dims = 2"),
        (lambda f: Image.new("RGB", (12, 12)).save(f / "dark" / "0.png"),
         "dark image 1: the image has 3 channels; task.channels says 1"),
        (lambda f: (f / "left").rename(f / "up"), "up image 1: class 'up' is unknown; task.labels has {}"),
        (write_manifest("dark/0.png,dark|left"), "row 2: 2 classes; several at once need task.multi_label = true"),
        (write_manifest("dark/a.png,dark"), "row 2: the image file is missing"),
        (write_manifest("dark/0.png,dark/0.nii"),
         'manifest layout: its cases have masks; task.kind = "classification" needs classes'),
    ],
)  # fmt: skip
def test_images_that_cannot_be_used_are_refused(folder: Path, broken: Callable[[Path], Any], said: str) -> None:
    broken(folder)
    with pytest.raises(DataError) as caught:
        open_task({}, folder)
    file = "/cases.csv" if said.startswith("row") else ""
    assert str(caught.value) == f"{folder}{file}: {said.format(', '.join(LABELS))}"


@pytest.mark.parametrize(
    ("arrays_", "said"),
    [
        ({"labels": np.array([[0], [3]])}, "set.npz: train image 1: class 3 is unknown; task.labels has 0 to 2"),
        ({"classes": np.array(["dark", "right", "left"])}, ": classes maps 1 to right, task.labels to left"),
    ],
)
def test_indices_that_mean_something_else_are_refused(tmp_path: Path, arrays_: dict[str, Any], said: str) -> None:
    images = {"train_images": np.zeros((2, 12, 12)), "train_labels": arrays_.pop("labels", np.array([[0], [1]]))}
    np.savez(tmp_path / "set.npz", **images, **arrays_)
    with pytest.raises(DataError, match=f"{said}$"):
        open_task({}, tmp_path)


def test_it_learns_from_files(folder: Path) -> None:
    task = open_task({}, folder)
    sizes = [len(task.cases(part).names) for part in ("training", "validation", "test")]
    assert (task.samples, sizes) == (19, [19, 3, 8])
    before = task.summary(task.evaluate(task.network(0), "test"))
    model = train(task, 80)
    after = task.summary(task.evaluate(model, "test"))
    assert after["auc"] == 1 > before["auc"]
    assert after["accuracy"] > max(0.8, before["accuracy"] + 0.3)
    found = task.probabilities(model, folder / "right" / "0.png")
    assert list(found) == LABELS
    assert sum(found.values()) == pytest.approx(1)
    assert found["right"] > 0.9


def test_files_and_arrays_are_the_same_images(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "arrays"
    other.mkdir()
    stored = np.asarray(Image.open(folder / "left" / "3.png"))
    np.savez(other / "set.npz", train_images=stored[None], train_labels=[[1]])
    task = open_task({"size": [12, 12]}, folder)
    (row,) = open_task({}, other).cases("training").images
    place = open_task({}, folder)
    rows = torch.cat([place.cases(part).images for part in ("training", "validation", "test")])
    assert (rows == row).flatten(1).all(1).any()
    model = task.network(0)
    (prediction,) = open_task({}, other).evaluate(model, "training", arrays=True)
    assert prediction.image.shape == (1, 12, 12)
    assert list(task.probabilities(model, folder / "left" / "3.png").values()) == pytest.approx(
        prediction.output.tolist(), abs=1e-6
    )


def test_it_learns_several_classes_at_once(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (32, 2))
    task = open_task(
        {"labels": ["left", "right"], "multi_label": True, "class_weights": "balanced"}, arrays(tmp_path, labels)
    )
    assert task.batch(0, 0)["label"].shape == (8, 2)
    there = labels[:24].sum(0)
    assert task._loss.pos_weight.tolist() == pytest.approx(((24 - there) / there).tolist())
    model = train(task, 80)
    predictions = task.evaluate(model, "validation")
    assert [p.truth.tolist() for p in predictions] == labels[24:].tolist()
    assert task.summary(predictions)["auc"] == task.summary(predictions)["accuracy"] == 1
    assert set(task.summary(predictions)) == {"accuracy", "auc", "f1", "f1_left", "f1_right"}


@pytest.mark.parametrize("several", [False, True])
def test_metrics_are_those_of_their_definition(several: bool) -> None:
    from braintorrent.tasks._class_scores import scores

    rng = np.random.default_rng(3)
    output = rng.random((50, 3)).round(1)  # with ties
    truth = rng.integers(0, 2, (50, 3)) if several else np.eye(3, dtype=int)[rng.integers(0, 3, 50)]
    found = scores(torch.tensor(output), torch.tensor(truth).float(), LABELS, several=several)
    decided = output >= 0.5 if several else np.eye(3, dtype=int)[output.argmax(1)]

    def auc(score: np.ndarray, true: np.ndarray) -> float:
        """The chance that a positive case scores above a negative one, a tie counting half."""
        pairs = score[true == 1][:, None] - score[true == 0]
        return float(((pairs > 0) + (pairs == 0) / 2).mean())

    f1 = [2 * (d * t).sum() / (d.sum() + t.sum()) for d, t in zip(decided.T, truth.T, strict=True)]
    expected = {
        "auc": np.mean([auc(s, t) for s, t in zip(output.T, truth.T, strict=True)]),
        "accuracy": (decided == truth).mean() if several else (decided * truth).sum(1).mean(),
        "f1": np.mean(f1), **dict(zip(("f1_dark", "f1_left", "f1_right"), f1, strict=True)),
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6)


def test_what_one_class_cannot_tell_is_left_out(tmp_path: Path) -> None:
    labels = np.concatenate([np.arange(24) % 3, np.full(8, 2)])[:, None]
    task = open_task({}, arrays(tmp_path, labels))
    predictions = task.evaluate(train(task, 80), "validation")
    assert task.summary(predictions) == {"accuracy": 1.0, "f1": 1.0, "f1_right": 1.0}
    assert {name: sum(p.metrics["accuracy"] for p in predictions) for name in ("right",)} == {"right": 8}
    assert task.evaluate(task.network(0), "test") == []
    assert task.summary([]) == {}


def test_a_batch_follows_from_seed_and_step_alone(folder: Path) -> None:
    task, again = open_task({"flip": 0.5}, folder), open_task({"flip": 0.5}, folder)
    for _ in range(3):
        task.batch(5, 0)
    ours, theirs = task.batch(5, 7), again.batch(5, 7)
    assert torch.equal(ours["image"], theirs["image"])
    assert torch.equal(ours["label"], theirs["label"])
    assert not torch.equal(ours["image"], task.batch(6, 7)["image"])
    assert not torch.equal(ours["image"], task.batch(5, 8)["image"])
    assert (ours["image"].shape, ours["image"].dtype) == ((8, 1, 12, 12), torch.float32)
    assert (ours["label"].shape, ours["label"].dtype) == ((8,), torch.int64)


def test_each_image_is_seen_once_per_epoch_and_mirrored_left_to_right(folder: Path) -> None:
    task = open_task({"batch": 19, "flip": 1.0, "intensity": 0.0}, folder)
    stored = {image.numpy().tobytes() for image in task.cases("training").images}
    for step in range(3):
        assert {image.flip(1).contiguous().numpy().tobytes() for image in task.batch(0, step)["image"]} == stored


def test_rare_classes_weigh_more(tmp_path: Path) -> None:
    labels = np.array([0] * 18 + [1] * 6 + [0] * 8)[:, None]
    weights = open_task({"class_weights": "balanced"}, arrays(tmp_path, labels))._loss.weight
    assert weights.tolist() == pytest.approx([24 / (3 * 18), 24 / (3 * 6), 1])
    assert open_task({"class_weights": [1.0, 2.0, 3.0]}, tmp_path)._loss.weight.tolist() == [1, 2, 3]
    assert open_task({}, tmp_path)._loss.weight is None


def test_sizes_and_intensities_are_brought_to_one_form(tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    (tmp_path / "left").mkdir()
    wide = np.zeros((20, 40), np.uint8)
    wide[:, 20:] = 200  # bright on the right: high x
    Image.fromarray(wide).save(tmp_path / "dark" / "1.png")
    Image.fromarray(pixels(np.random.default_rng(0), 1)).save(tmp_path / "left" / "1.png")
    image = open_task({"labels": ["dark", "left"]}, tmp_path).cases("training").images[0, 0]
    assert image.shape == (12, 12)
    assert image[0].mean() < -0.8 < 0.8 < image[-1].mean()  # axis 0 is x
    assert (image.mean().item(), image.std(correction=0).item()) == pytest.approx((0, 1), abs=1e-5)
    byte = open_task({"labels": ["dark", "left"], "normalise": "bytes"}, tmp_path).cases("training").images[0, 0]
    assert (byte[0, 0].item(), byte[-1, 0].item()) == pytest.approx((-1, 200 / 127.5 - 1))


def test_volumes_are_turned_to_one_orientation(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((6, 8, 5)).astype(np.float32)
    for name, array, affine in (("dark", volume, np.eye(4)), ("left", volume[::-1], np.diag([-1.0, 1, 1, 1]))):
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / name / "1.nii.gz")
    options = {"dims": 3, "size": [8, 8, 8], "labels": ["dark", "left"], "normalise": "channel"}
    first, second = open_task(options, tmp_path).cases("training").images
    assert first.shape == (1, 8, 8, 8)
    assert torch.equal(first, second)
    with pytest.raises(DataError, match="dark image 1: the image is a volume; the network takes other ones"):
        open_task({"labels": ["dark", "left"]}, tmp_path)


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("DenseNet", {"init_features": 4, "growth_rate": 4, "block_config": [1, 1]}),
        ("ResNet", {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8], "conv1_t_size": 3}),
    ],
)
def test_networks_are_told_what_follows_from_the_options(folder: Path, network: str, arguments: dict[str, Any]) -> None:
    task = open_task({"network": network, "network_args": arguments}, folder)
    model = train(task, 1)
    assert task.evaluate(model, "validation")[0].output.shape == (3,)


def test_a_network_may_return_more_than_logits(folder: Path) -> None:
    class Talkative(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            return images.flatten(1)[:, :3], [images]  # as ViT does

    task = open_task({}, folder)
    assert task.evaluate(Talkative(), "validation")[0].output.shape == (3,)
    assert task.loss(Talkative(), task.batch(0, 0)).ndim == 0


def test_the_same_seed_gives_the_same_network(folder: Path) -> None:
    task = open_task({}, folder)
    first, second, other = (list(task.network(seed).parameters()) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))
