"""The [task] of the demo's built-in labs: a small network that learns something in minutes on two cores."""

from __future__ import annotations

from typing import Any

from braintorrent.experiments.anatomy import LABELS

BRAIN_VERSIONS = 24  # of each lab


def brain_task() -> dict[str, Any]:
    """For the labs of anatomy.py: tissue on slices, a 2-D UNet of 228,000 parameters."""
    return {
        "kind": "segmentation", "labels": list(LABELS), "channels": 1, "dims": 2,
        "network": "UNet", "network_args": {"channels": [16, 32, 64, 64], "strides": [2, 2, 2], "num_res_units": 2},
        "patch": [80, 96], "batch": 6, "steps": 12, "lr": 2e-3, "intensity": 0.0,
    }  # fmt: skip
