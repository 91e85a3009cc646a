"""A lab's scans: read a Decathlon folder, check it, bring it to a common form, keep it in memory.

The folder is laid out as in the Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022):
`dataset.json` lists cases as {"image": path, "label": path} under "training", and here also under "validation"
and "test"; paths are relative to the folder, or absolute. Cases are called by part and position, never by file
name, which may identify a patient.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import load_decathlon_datalist, set_track_meta
from monai.transforms import Compose, LoadImage, map_binary_to_indices

from braintorrent.errors import DataError
from braintorrent.tasks._options import Options
from braintorrent.tasks._pipeline import check_image, common_form, instantiate

PARTS = ("training", "validation", "test")
CENTRES = 1 << 16  # remembered patch centres per case and kind: enough to choose from, small beside the scan


@dataclass(frozen=True, slots=True)
class Case:
    """One subject, preprocessed. image: float32 [C, H, W, D]; label: uint8 [1, H, W, D]."""

    name: str
    image: torch.Tensor
    label: torch.Tensor
    spacing: tuple[float, ...]  # mm per voxel of each axis
    foreground: torch.Tensor  # flat positions of labelled voxels
    background: torch.Tensor


def list_cases(folder: Path, part: str) -> list[dict[str, str]]:
    """Absolute image and label paths of one part; a part that is not listed is empty, "training" must be there."""
    path = folder / "dataset.json"
    try:
        listed = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; data = must name a Decathlon folder with dataset.json") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error})") from None
    if not isinstance(listed, dict) or not all(isinstance(listed.get(p, []), list) for p in PARTS):
        raise DataError(f"{path}: not a Decathlon dataset.json")
    cases = listed.get(part) or []
    if part == "training" and not cases:
        raise DataError(f"{path}: no training cases")
    if part == "test" and not all(isinstance(c, dict) for c in cases):
        return []  # the Decathlon's own test part has images only, and nothing to compare with
    for number, case in enumerate(cases):
        if not (isinstance(case, dict) and isinstance(case.get("image"), str) and isinstance(case.get("label"), str)):
            raise DataError(f"{path}: {part} case {number}: needs an image and a label")
    return load_decathlon_datalist(path, data_list_key=part) if cases else []


def load_cases(folder: Path, part: str, options: Options) -> list[Case]:
    """Every case of a part, or a DataError in one line naming the case by its position in dataset.json."""
    return [
        _load(paths, f"{part} case {number}", folder / "dataset.json", options)
        for number, paths in enumerate(list_cases(folder, part))
    ]


def _load(paths: dict[str, str], name: str, source: Path, options: Options) -> Case:
    where = f"{source}: {name}"
    set_track_meta(True)  # orientation and spacing need the affine
    try:
        case = {key: _read(paths[key], key, where) for key in ("image", "label")}
        _check(case["image"], case["label"], where, options)
        case = Compose(instantiate(common_form(options, ["image", "label"])))(case)
    finally:
        set_track_meta(False)  # from here on plain tensors: patches are cut several times faster
    spacing = tuple(case["image"].pixdim.tolist())
    image = case["image"].as_tensor().to(torch.float32).contiguous()
    label = case["label"].as_tensor().to(torch.uint8).contiguous()
    inside, outside = map_binary_to_indices(label)
    return Case(name, image, label, spacing, _thin(torch.as_tensor(inside)), _thin(torch.as_tensor(outside)))


def _read(path: str, key: str, where: str) -> Any:
    if not Path(path).is_file():
        raise DataError(f"{where}: the {key} file is missing")
    try:
        volume = LoadImage(image_only=True, ensure_channel_first=True)(path)
    except Exception as error:  # each reader library fails in its own way
        raise DataError(f"{where}: the {key} file is not readable ({type(error).__name__})") from None
    return volume[..., None] if volume.ndim == 3 else volume  # a single 2-D image is a volume of one slice


def _check(image: Any, label: Any, where: str, options: Options) -> None:
    if image.shape[1:] != label.shape[1:]:
        raise DataError(f"{where}: image {_size(image)} and label {_size(label)} differ in shape")
    check_image(image, where, options)
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
