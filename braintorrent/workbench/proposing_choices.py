"""From facts about a lab's data to the values of federation.toml, each with its reason.

The sizes are for processors: a step under a second or so on two cores. Where every lab has a GPU, a larger patch and
more channels are worth it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from braintorrent.workbench.proposing_facts import Facts

HALVINGS = 3  # a UNet of four levels: a patch is a multiple of 8
PATCH_VOXELS = {2: 128**2, 3: 48**3}  # by dimensions
BATCH = {2: 8, 3: 4}  # patches
SIZE_VOXELS = {2: 128**2, 3: 32**3}  # of a whole image
IMAGES = {2: 32, 3: 8}  # a batch of them
SMALL = 64  # pixels a side; a network for such does not halve them at once
STEPS = (12, 100)  # optimiser steps per version, at least and at most
THICK = 3.0  # slices this much thicker than pixels: a volume is a pile of pictures
HEAVIEST = 10.0  # weight of a rare class
RARE = 0.5  # of an even share: a class with less is weighted up


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of federation.toml under its dotted key, and why."""

    key: str
    value: Any
    why: str


def choose(facts: Facts, cases: int | None = None) -> list[Choice]:
    """The [task] of a federation. cases: training cases of a typical lab, where `facts` are of all labs' data."""
    chosen = [
        Choice("task.kind", facts.kind, _kind(facts)),
        Choice("task.labels", list(facts.labels), f"{facts.labels_from}; the same names in every lab"),
        Choice("task.channels", facts.channels, f"of an image, in {facts.scans} headers"),
    ]
    if len(facts.modality) == facts.channels:
        chosen.append(Choice("task.modality", list(facts.modality), "of each channel, as the listing names them"))
    chosen += _segmentation(facts) if facts.kind == "segmentation" else _classification(facts)
    batch = next(choice.value for choice in chosen if choice.key == "task.batch")
    count = cases or facts.cases
    steps = min(max(math.ceil(count / batch), STEPS[0]), STEPS[1])
    why = f"optimiser steps per version: about one pass over {count} training cases, within {STEPS[0]} to {STEPS[1]}"
    position = next(place for place, choice in enumerate(chosen) if choice.key == "task.batch")
    chosen.insert(position + 1, Choice("task.steps", steps, why))
    return chosen


def as_table(choices: list[Choice]) -> dict[str, Any]:
    """Dotted keys as nested tables."""
    whole: dict[str, Any] = {}
    for choice in choices:
        *path, last = choice.key.split(".")
        table = whole
        for name in path:
            table = table.setdefault(name, {})
        table[last] = choice.value
    return whole


def _kind(facts: Facts) -> str:
    if facts.kind == "segmentation":
        return f"{facts.cases} labelled cases with masks"
    return f"{facts.cases} labelled cases with {'any number of classes' if facts.several else 'one class'} each"


def _dims(facts: Facts) -> Choice:
    """Networks on slices cut along the last axis, so only where that is the thick one."""
    if len(facts.shape) == 2:
        return Choice("task.dims", 2, "images are flat")
    if facts.shape[2] == 1:
        return Choice("task.dims", 2, "volumes are one slice")
    if facts.spacing:
        ratio = facts.spacing[2] / max(facts.spacing[:2])
        if ratio > THICK:
            return Choice("task.dims", 2, f"a network on slices: they are {ratio:.1f} times thicker than pixels")
        return Choice("task.dims", 3, f"a network on volumes: voxels are {_sizes(facts.spacing)} mm")
    return Choice("task.dims", 3, "a network on volumes")


def _segmentation(facts: Facts) -> list[Choice]:
    dims = _dims(facts)
    chosen = [dims]
    if facts.differs and facts.spacing:
        why = "mm; scans differ by more than 5 %: all are resampled to the median"
        chosen.append(Choice("task.spacing", list(facts.spacing), why))
    sides = facts.shape[: dims.value]
    patch = fitting_patch(sides, PATCH_VOXELS[dims.value])
    batch = BATCH[dims.value]
    return [
        *chosen,
        Choice("task.network", "UNet", "of MONAI; small enough for a processor, any of monai.networks.nets will do"),
        Choice("task.patch", patch, f"voxels; multiples of {2**HALVINGS} in the median scan of {_sizes(facts.shape)}, "
                                    f"at most {PATCH_VOXELS[dims.value]:,} in all, for a processor"),
        Choice("task.batch", batch, "patches per step"),
        Choice("task.lr", 2e-3, "learning rate of Adam; lower it where training is unstable"),
        Choice("task.network_args.channels", [16, 32, 64, 128], "of each level"),
        Choice("task.network_args.strides", [2] * HALVINGS, f"halves the patch {HALVINGS} times"),
        Choice("task.network_args.num_res_units", 1, "convolutions with a short cut"),
    ]  # fmt: skip


def fitting_patch(sides: tuple[int, ...], voxels: int) -> list[int]:
    """Begin with the whole scan, then shorten the longest side until it fits, as nnU-Net does (Isensee et al., 2021).

    sides: of the median scan. Every side is a multiple of 8 and at least 8; shorter scans are padded.
    """
    unit = 2**HALVINGS
    patch = [max(unit, side // unit * unit) for side in sides]
    while math.prod(patch) > voxels:
        longest = patch.index(max(patch))
        if patch[longest] == unit:
            break
        patch[longest] -= unit
    return patch


def _classification(facts: Facts) -> list[Choice]:
    dims = _dims(facts)
    shape = facts.shape[: dims.value]
    size = fitting_size(shape, SIZE_VOXELS[dims.value])
    scaled = "as they are" if tuple(size) == shape else f"a median of {_sizes(shape)}, made smaller for a processor"
    small = max(size) <= SMALL
    optional = []
    if facts.several:
        optional.append(Choice("task.multi_label", True, "there are images with several classes, or none"))
    if (rarest := min(facts.shares)) * len(facts.shares) < RARE:
        why = f"in the loss, by class: the rarest has {rarest:.0%} of the cases; the same in every lab, whatever it has"
        optional.append(Choice("task.class_weights", class_weights(facts.shares, several=facts.several), why))
    return [
        dims,
        Choice("task.size", size, f"pixels that all images are resized to: {scaled}"),
        *optional,
        Choice("task.network", "ResNet", "of MONAI; small enough for a processor, any that classifies will do"),
        Choice("task.batch", IMAGES[dims.value], "images per step"),
        Choice("task.lr", 1e-3, "learning rate of Adam; lower it where training is unstable"),
        Choice("task.network_args.block", "basic", "two convolutions and a short cut"),
        Choice("task.network_args.layers", [1, 1, 1, 1], "blocks of each level"),
        Choice("task.network_args.block_inplanes", [8, 16, 32, 64], "channels of each level"),
        Choice("task.network_args.conv1_t_size", 3 if small else 7, "pixels of the first convolution"),
        Choice("task.network_args.conv1_t_stride", 1 if small else 2, "small images are not halved at once" if small
               else "halves images at once"),
        Choice("task.network_args.no_max_pool", small, "nor again" if small else "false: and again"),
        Choice("task.network_args.norm", ["group", {"num_groups": 4}],
               "of each image by itself: batch statistics of labs that differ do not average well"),
    ]  # fmt: skip


def class_weights(shares: tuple[float, ...], *, several: bool) -> list[float]:
    """What makes up for rarity, within 1/10 to 10; where classes exclude no other, for being there at all.

    Not "balanced": in a lab with three cases of a class each would weigh hundreds, and its model swing.
    """
    wanted = [((1 - share) if several else 1 / len(shares)) / max(share, 1e-6) for share in shares]
    return [round(min(max(weight, 1 / HEAVIEST), HEAVIEST), 3) for weight in wanted]


def fitting_size(shape: tuple[int, ...], voxels: int) -> list[int]:
    """The median image, made smaller in proportion until it has so many pixels at most; a side is at least 8."""
    scale = min(1.0, (voxels / math.prod(shape)) ** (1 / len(shape)))
    return [max(8, math.floor(side * scale)) for side in shape]


def _sizes(numbers: tuple[int, ...] | tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
