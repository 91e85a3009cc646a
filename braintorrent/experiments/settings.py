"""The [task] of the demo's federations: small networks that learn something in minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from braintorrent.errors import DataError
from braintorrent.experiments.anatomy import LABELS
from braintorrent.experiments.split import read

LONGEST_SIDE = 48  # voxels of a patch: 3-D training on a CPU stays under a second per step
SHRINKING = 8  # the network halves a patch three times


def brain_task() -> dict[str, Any]:
    """For the labs of anatomy.py: tissue on slices, a 2-D UNet of 228,000 parameters."""
    return {
        "kind": "segmentation", "labels": list(LABELS), "channels": 1, "dims": 2,
        "network": "UNet", "network_args": {"channels": [16, 32, 64, 64], "strides": [2, 2, 2], "num_res_units": 2},
        "patch": [80, 96], "batch": 6, "steps": 12, "lr": 2e-3, "intensity": 0.0,
    }  # fmt: skip


def decathlon_task(folder: Path) -> dict[str, Any]:
    """For any Decathlon folder: its labels and channels, patches that fit its scans, a 3-D UNet of 600,000 weights."""
    described, cases = read(folder)
    try:
        labels = described["labels"]
        names = [labels[str(value)] for value in range(len(labels))]
        channels = len(described["modality"])
    except (KeyError, TypeError):
        raise DataError(f'{folder / "dataset.json"}: needs labels from "0" on, and modality') from None
    shapes = [_shape(Path(case["image"])) for case in cases["training"][:16]]
    sides = [int(median(axis)) for axis in zip(*shapes, strict=True)]
    patch = [max(SHRINKING, min(side, LONGEST_SIDE) // SHRINKING * SHRINKING) for side in sides]
    return {
        "kind": "segmentation", "labels": names, "channels": channels, "dims": 3,
        "network": "UNet", "network_args": {"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 1},
        "patch": patch, "batch": 4, "steps": 12, "lr": 2e-3,
    }  # fmt: skip


def _shape(path: Path) -> tuple[int, ...]:
    import nibabel

    try:
        return tuple(nibabel.load(path).shape[:3])
    except Exception as error:  # nibabel raises its own and everything zlib and the file system have
        raise DataError(f"a scan listed under training is not readable ({type(error).__name__})") from None
