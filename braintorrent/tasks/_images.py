"""Whole images with classes: listed in any layout, brought to one size and scale, kept as one tensor.

Axes as MONAI has them, x first: [C, W, H] or [C, W, H, D], volumes in RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Orientation
from torch.nn.functional import interpolate

from braintorrent.errors import DataError
from braintorrent.tasks._cases import read
from braintorrent.tasks._meta import tracking
from braintorrent.tasks._naming import check_names
from braintorrent.tasks._pipeline import check_affine
from braintorrent.tasks.layouts import Entry, open_dataset
from braintorrent.tasks.layouts.parts import assign

FLAT = 1e-6  # a standard deviation below it is that of one value throughout


@dataclass(frozen=True, slots=True)
class Images:
    """Cases of a part. images: float32 [N, C, *size]; targets: int64 [N], or float32 [N, K] if several classes fit."""

    names: tuple[str, ...]
    images: torch.Tensor
    targets: torch.Tensor


def list_images(data: Path, split: Path | None, options: Any) -> dict[str, list[Entry]]:
    """The cases of each part; DataError where they do not fit what the labs agreed on."""
    dataset = open_dataset(data)
    if any(isinstance(entry.label, Path) for entry in dataset.entries):
        raise DataError(
            f'{dataset.root}: {dataset.layout} layout: its cases have masks; task.kind = "classification" needs classes'
        )
    if dataset.layout == "medmnist":  # elsewhere classes are given by name, and their order means nothing
        check_names(dataset, options.labels, options.modality, options.channels)
    return assign(dataset, split)


def load_images(entries: Sequence[Entry], options: Any) -> Images:
    """Every case of a part, or a DataError in one line naming the case by its place in the listing."""
    shape = (0, options.channels, *options.size)
    images = [prepare(entry.image, options, entry.where) for entry in entries]
    targets = [_target(entry, options) for entry in entries]
    return Images(
        tuple(entry.place for entry in entries),
        torch.stack(images) if images else torch.zeros(shape),
        torch.stack(targets) if targets else torch.zeros(0),
    )


def prepare(source: Path | np.ndarray, options: Any, where: str) -> torch.Tensor:
    """A file or pixels as the network takes them, float32 [C, *size]; DataError names `where`."""
    image = _pixels(source, options.dims) if isinstance(source, np.ndarray) else _read(source, options.dims, where)
    if image.ndim != options.dims + 1:
        axes = "a volume" if image.ndim == 4 else "flat"
        raise DataError(f"{where}: the image is {axes}; the network takes other ones, task.dims = {options.dims}")
    if len(image) != options.channels:
        raise DataError(f"{where}: the image has {len(image)} channels; task.channels says {options.channels}")
    if not image.isfinite().all():
        raise DataError(f"{where}: the image has values that are not finite")
    if list(image.shape[1:]) != options.size:
        image = _resized(image, options.size)
    return _scaled(image, options.normalise)


def _pixels(array: np.ndarray, dims: int) -> torch.Tensor:
    """[H, W], [H, W, C] or [D, H, W] with x first and channels in front."""
    image = torch.from_numpy(np.ascontiguousarray(array.T, np.float32))
    return image[None] if array.ndim == dims else image


def _read(path: Path, dims: int, where: str) -> torch.Tensor:
    with tracking(True):  # orientation needs the affine
        volume = read(path, "image", where)
        if dims == 3 and volume.shape[-1] > 1:
            check_affine(volume, where)
            volume = Orientation(axcodes="RAS", labels=None)(volume)
    image: torch.Tensor = volume.as_tensor().to(torch.float32)
    return image[..., 0] if image.shape[-1] == 1 else image


def _resized(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Means over areas where it shrinks, so that nothing aliases; linear where it grows."""
    smaller = [min(sides) for sides in zip(image.shape[1:], size, strict=True)]
    image = interpolate(image[None], smaller, mode="area")
    return interpolate(image, tuple(size), mode="bilinear" if len(size) == 2 else "trilinear")[0]


def _scaled(image: torch.Tensor, normalise: str) -> torch.Tensor:
    if normalise == "bytes":
        return image / 127.5 - 1
    axes = tuple(range(0 if normalise == "image" else 1, image.ndim))
    spread, mean = torch.std_mean(image, axes, correction=0, keepdim=True)
    return (image - mean) / spread.clamp_min(FLAT)


def _target(entry: Entry, options: Any) -> torch.Tensor:
    assert isinstance(entry.label, tuple)
    indices = [_index(label, options.labels, entry.where) for label in entry.label]
    if options.multi_label:
        target = torch.zeros(len(options.labels))
        target[indices] = 1
        return target
    if len(indices) != 1:
        raise DataError(f"{entry.where}: {len(indices)} classes; several at once need task.multi_label = true")
    return torch.tensor(indices[0])


def _index(label: str | int, labels: Sequence[str], where: str) -> int:
    if isinstance(label, int):
        if not 0 <= label < len(labels):
            raise DataError(f"{where}: class {label} is unknown; task.labels has 0 to {len(labels) - 1}")
        return label
    if label not in labels:
        raise DataError(f"{where}: class {label!r} is unknown; task.labels has {', '.join(labels)}")
    return labels.index(label)
