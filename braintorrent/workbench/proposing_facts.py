"""What a proposal rests on: facts about a lab's data, from its listing and the headers of a few tens of scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, Entry
from braintorrent.workbench.proposing_headers import Header, header, mask

Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much

SCANS_READ = 32  # headers
MASKS_READ = 8  # where the layout does not name its labels
DIFFERS = 0.05  # of a voxel's size, between scans
MOST_LABELS = 64  # a mask value above it is a mistake, or an intensity


@dataclass(frozen=True, slots=True)
class Facts:
    """kind: "segmentation" or "classification". shape, spacing: medians over scans; axes as in Header.

    labels_from: for people, where the names come from; named: whether they are the data's own, not made up here;
    by_name: whether cases give their classes by name. differs: whether voxel sizes differ between scans.
    several: whether there are images of several classes, or none. shares: of the cases, by class.
    """

    kind: str
    cases: int
    labels: tuple[str, ...]
    labels_from: str
    channels: int
    modality: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    differs: bool
    scans: int
    named: bool
    by_name: bool = False
    several: bool = False
    shares: tuple[float, ...] = ()


def facts(dataset: Dataset, progress: Progress = lambda *_: None) -> Facts:
    """Facts of the labelled training cases; DataError in one line where they are unclear."""
    entries = labelled(dataset)
    kind = kind_of(dataset, entries)
    headers = []
    chosen = _spread(entries, SCANS_READ)
    for number, entry in enumerate(chosen, 1):
        headers.append(header(entry))
        progress("reading headers", number, len(chosen))
    shape, spacing, differs = _size(dataset.root, headers)
    channels = _channels(chosen, headers)
    if kind == "segmentation":
        names, source, named = _mask_labels(dataset, entries)
        return Facts(
            kind, len(entries), names, source, channels, dataset.modality, shape, spacing, differs, len(headers), named
        )
    names, source, named = _classes(dataset, entries)
    held = [classes_of(entry) for entry in entries]
    return Facts(
        kind, len(entries), names, source, channels, dataset.modality, shape, spacing, differs, len(headers), named,
        by_name=any(isinstance(one, str) for classes in held for one in classes),
        several=any(len(classes) != 1 for classes in held), shares=_shares(entries, names),
    )  # fmt: skip


def labelled(dataset: Dataset) -> list[Entry]:
    """The cases that can be trained on: labelled, and in the training part or in none."""
    entries = [e for e in dataset.entries if e.label is not None and e.part in ("", "training")]
    if not entries:
        raise DataError(f"{dataset.root}: no labelled training cases; each needs a mask file, or a class")
    return entries


def kind_of(dataset: Dataset, entries: Sequence[Entry]) -> str:
    """Masks make it segmentation, classes classification."""
    masks = sum(isinstance(entry.label, Path) for entry in entries)
    if 0 < masks < len(entries):
        raise DataError(f"{dataset.root}: {masks} cases have masks, {len(entries) - masks} classes; keep one kind")
    return "segmentation" if masks else "classification"


def classes_of(entry: Entry) -> tuple[str | int, ...]:
    """The classes of a whole image, by name or index."""
    assert isinstance(entry.label, tuple)
    return entry.label


def _spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    """At most so many, evenly from first to last: neighbours in a listing often come from one scanner."""
    where = np.linspace(0, len(entries) - 1, min(most, len(entries))).round().astype(int)
    return [entries[position] for position in where]


def _size(root: Path, headers: Sequence[Header]) -> tuple[tuple[int, ...], tuple[float, ...] | None, bool]:
    """Median shape (at the median spacing, where scans differ), median spacing, and whether they differ."""
    axes = {len(found.shape) for found in headers}
    if len(axes) > 1:
        raise DataError(f"{root}: flat images and volumes are mixed; keep one kind")
    if any(found.spacing is None for found in headers):
        return tuple(int(median(side)) for side in zip(*(h.shape for h in headers), strict=True)), None, False
    sizes = np.array([found.spacing for found in headers])
    middle = np.median(sizes, axis=0)
    differs = bool((np.abs(sizes / middle - 1) > DIFFERS).any())
    shapes = np.array([found.shape for found in headers])
    voxels = np.median(shapes * sizes / middle if differs else shapes, axis=0)
    return tuple(int(side) for side in voxels), tuple(round(float(s), 3) for s in middle), differs


def _channels(entries: Sequence[Entry], headers: Sequence[Header]) -> int:
    first = headers[0].channels
    for entry, found in zip(entries, headers, strict=True):
        if found.channels != first:
            raise DataError(
                f"{entry.where}: {found.channels} channels, where {entries[0].where} has {first}; "
                f"all scans of a federation have the same"
            )
    return first


def _mask_labels(dataset: Dataset, entries: Sequence[Entry]) -> tuple[tuple[str, ...], str, bool]:
    """(names, where they come from, whether they are the data's own)."""
    if dataset.labels:
        return dataset.labels, f"as the {dataset.layout} listing names them", True
    read = _spread(entries, MASKS_READ)
    found = max(_largest(entry) for entry in read)
    if not found:
        raise DataError(f"{dataset.root}: the {len(read)} masks looked at are empty; a mask holds 1 where a label is")
    names = ("background", *(f"label-{value}" for value in range(1, found + 1)))
    return names, f"values found in {len(read)} masks; give them names", False


def _largest(entry: Entry) -> int:
    values, _ = mask(entry)
    if values.min() < 0 or values.max() > MOST_LABELS:
        worst = int(values.min() if values.min() < 0 else values.max())
        raise DataError(f"{entry.where}: mask value {worst}; labels are 0 (background), 1, 2, ... up to {MOST_LABELS}")
    return int(values.max())


def _classes(dataset: Dataset, entries: Sequence[Entry]) -> tuple[tuple[str, ...], str, bool]:
    found = {one for entry in entries for one in classes_of(entry)}
    if dataset.labels:
        names, source, named = dataset.labels, f"as the {dataset.layout} layout names them", True
    elif all(isinstance(one, int) for one in found):
        names = tuple(f"class-{index}" for index in range(max(map(int, found), default=0) + 1))
        source, named = "indices found; give them names", False
    else:
        names, source, named = tuple(sorted(map(str, found))), "classes found, sorted", True
    if len(names) < 2:
        raise DataError(f"{dataset.root}: one class only; a classification needs two")
    return names, source, named


def _shares(entries: Sequence[Entry], names: Sequence[str]) -> tuple[float, ...]:
    held = [{names[one] if isinstance(one, int) else one for one in classes_of(entry)} for entry in entries]
    return tuple(round(sum(name in one for one in held) / len(held), 3) for name in names)
