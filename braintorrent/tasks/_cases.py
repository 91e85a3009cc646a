"""A lab's labelled scans: listed in any layout, checked, brought to a common form, kept in memory.

Cases are called by their place in the listing, never by file name, which may identify a patient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.utils import to_affine_nd
from monai.transforms import Compose, LoadImage, map_binary_to_indices

from braintorrent.errors import DataError
from braintorrent.tasks._meta import tracking
from braintorrent.tasks._naming import check_names
from braintorrent.tasks._options import Options
from braintorrent.tasks._pipeline import check_affine, check_image, common_form, instantiate
from braintorrent.tasks.layouts import Entry, open_dataset
from braintorrent.tasks.layouts.dicom import check_series
from braintorrent.tasks.layouts.parts import assign
from braintorrent.tasks.layouts.reading import MISPLACED, apart, misplaced

CENTRES = 1 << 16  # remembered patch centres per case and kind: enough to choose from, small beside the scan


@dataclass(frozen=True, slots=True)
class Case:
    """One scan, preprocessed. image: float32 [C, H, W, D]; label: uint8 [1, H, W, D]."""

    name: str
    image: torch.Tensor
    label: torch.Tensor
    spacing: tuple[float, ...]  # mm per voxel of each axis
    foreground: torch.Tensor  # flat positions of labelled voxels
    background: torch.Tensor


def list_cases(data: Path, split: Path | None, options: Options) -> dict[str, list[Entry]]:
    """The cases of each part; DataError where the listing contradicts itself, the record, or the labs' agreement."""
    dataset = open_dataset(data)
    if any(isinstance(entry.label, tuple) for entry in dataset.entries):
        raise DataError(
            f"{dataset.root}: {dataset.layout} layout: its cases have classes; "
            'task.kind = "segmentation" needs a mask file for each'
        )
    check_names(dataset, options.labels, options.modality, options.channels)
    return assign(dataset, split)


def load_cases(entries: Iterable[Entry], options: Options) -> list[Case]:
    """Every case, or a DataError in one line naming the case by its place in the listing."""
    common = Compose(instantiate(common_form(options, ["image", "label"])))  # once: MONAI searches itself each time
    return [_load(entry, options, common) for entry in entries]


def _load(entry: Entry, options: Options, common: Compose) -> Case:
    with tracking(True):  # orientation and spacing need the affine
        case = {key: read(getattr(entry, key), key, entry.where) for key in ("image", "label")}
        _check(case["image"], case["label"], entry.where, options)
        case = common(case)
    spacing = tuple(case["image"].pixdim.tolist())
    image = case["image"].as_tensor().to(torch.float32).contiguous()
    label = case["label"].as_tensor().to(torch.uint8).contiguous()
    inside, outside = map_binary_to_indices(label)
    return Case(entry.place, image, label, spacing, _thin(torch.as_tensor(inside)), _thin(torch.as_tensor(outside)))


def read(path: Path, key: str, where: str) -> Any:
    """A file, or a folder with a DICOM series, as MONAI's MetaTensor [C, H, W, D]; key: "image" or "label"."""
    if path.is_dir():
        check_series(path, where)
    elif not path.is_file():
        raise DataError(f"{where}: the {key} file is missing")
    try:
        volume = LoadImage(image_only=True, ensure_channel_first=True)(path)
    except Exception as error:  # each reader library fails in its own way
        raise DataError(f"{where}: the {key} file is not readable ({type(error).__name__})") from None
    return volume[..., None] if volume.ndim == 3 else volume  # a single 2-D image is a volume of one slice


def _check(image: Any, label: Any, where: str, options: Options) -> None:
    if image.shape[1:] != label.shape[1:]:
        raise DataError(f"{where}: image {_size(image)} and label {_size(label)} differ in shape")
    if len(label) != 1:
        raise DataError(f"{where}: the label has {len(label)} channels; a mask has one")
    check_image(image, where, options)
    check_affine(label, f"{where}: label")
    affines = (to_affine_nd(3, np.asarray(volume.affine, float)) for volume in (image, label))
    voxels, millimetres = apart(*affines, image.shape[1:])
    if voxels > MISPLACED:
        what = misplaced(voxels, millimetres)
        raise DataError(f"{where}: {what}; resample it to the image's grid, or mend its header")
    values = label.unique().tolist()
    unknown = [v for v in values if v not in range(len(options.labels))]
    if unknown:
        raise DataError(
            f"{where}: label value {unknown[0]:g} is unknown; task.labels has 0 to {len(options.labels) - 1}"
        )


def _size(volume: Any) -> str:
    return " x ".join(str(n) for n in volume.shape[1:])


def _thin(positions: torch.Tensor) -> torch.Tensor:
    return positions[:: len(positions) // CENTRES + 1].clone()
