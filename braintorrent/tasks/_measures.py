"""How well a segmentation agrees with the truth, label by label: overlap, distance of the surfaces, volume."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot

Measures = dict[str, dict[str, float]]
"""Label -> measure -> value; a measure that is not defined in a case is missing."""


def dice(output: torch.Tensor, truth: torch.Tensor, labels: Sequence[str]) -> dict[str, float]:
    """MONAI's Dice of each foreground label that the truth holds; output, truth: uint8 [1, H, W, D]."""
    hot = [one_hot(volume[None], len(labels), dtype=torch.uint8) for volume in (output, truth)]
    values = compute_dice(*hot, include_background=False, ignore_empty=True)[0].tolist()
    return {name: value for name, value in zip(labels[1:], values, strict=True) if not math.isnan(value)}


def measures(output: torch.Tensor, truth: torch.Tensor, labels: Sequence[str], spacing: Sequence[float]) -> Measures:
    """Of each foreground label; output, truth: uint8 [1, H, W, D], spacing: mm per voxel of each axis.

    dice; hd95: the 95th percentile of the distances between the surfaces, both ways, in mm, where both have one;
    truth_ml, output_ml; volume_ml: output less truth; volume_percent: the same in per cent of the truth.
    """
    overlap, millilitres = dice(output, truth, labels), float(np.prod(spacing)) / 1000
    found: Measures = {}
    for value, name in enumerate(labels[1:], 1):
        masks = [(volume == value)[None] for volume in (output, truth)]
        ours, true = (int(mask.sum()) * millilitres for mask in masks)
        one = {"truth_ml": true, "output_ml": ours, "volume_ml": ours - true}
        if name in overlap:
            one = {"dice": overlap[name], **one}
        if true:
            one["volume_percent"] = 100 * (ours - true) / true
        if true and ours:
            one["hd95"] = _hd95(masks, spacing)
        found[name] = one
    return found


def _hd95(masks: Sequence[torch.Tensor], spacing: Sequence[float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI remarks on half of its own defaults
        distance = compute_hausdorff_distance(
            *masks, include_background=True, percentile=95, spacing=[float(size) for size in spacing]
        )
    return float(distance.item())
