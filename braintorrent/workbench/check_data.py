"""Data, case by case: readable, image and mask in one place, values in the map. One case in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import PARTS, Dataset, Entry, open_dataset
from braintorrent.tasks.layouts.dicom import check_series
from braintorrent.tasks.layouts.parts import assign
from braintorrent.tasks.layouts.reading import MISPLACED, Scan, apart, decode, misplaced
from braintorrent.workbench.check_configuration import Setup
from braintorrent.workbench.check_findings import Group
from braintorrent.workbench.check_set import check_parts, check_set, named

SAME_PLACE = 0.01  # voxels; below it lies what headers in float32 round away
FLAT = 1e-6  # of the volume of a voxel with right angles


@dataclass(slots=True)
class Case:
    """What is remembered of a case once its voxels are gone. counts: label -> voxels, or 1 for a whole image."""

    entry: Entry
    part: str
    where: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    digest: str = ""  # of the decoded voxels; empty for a constant image, which is like any other
    counts: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What [task] of federation.toml says of the data; empty where it says nothing."""

    labels: tuple[str, ...]
    modality: tuple[str, ...]
    channels: int
    dims: int  # spatial axes of pixels
    several: bool  # classes do not exclude each other


def _agreed(setup: Setup) -> Agreed:
    task = setup.federation.task if setup.federation else {}

    def said(key: str, otherwise: Any) -> Any:
        value = task.get(key, otherwise)
        return value if isinstance(value, type(otherwise)) else otherwise  # what is wrong with it is said elsewhere

    labels, modality = (tuple(map(str, said(key, []))) for key in ("labels", "modality"))
    return Agreed(labels, modality, said("channels", 1), said("dims", 2), said("multi_label", False))


def check_data(
    group: Group, setup: Setup, split: Path, facts: dict[str, Any], progress: Callable[[str, int, int], None]
) -> bool:
    """Whether the data can be trained on as it is. split: record of the parts, or where to make one."""
    if hasattr(setup.plugin, "open_learner"):
        group.note("data", f"task {setup.federation.kind} looks after its data itself")  # type: ignore[union-attr]
        return True
    if not setup.peer.data:
        group.error("data", "data: names no folder", str(setup.folder / "peer.toml"), "name this lab's scans")
        return False
    try:
        dataset = open_dataset(setup.data)
    except DataError as error:
        group.error("listing", str(error), do=f"see `data` in {setup.folder / 'peer.toml'}")
        return False
    parts = _parts(group, dataset, split)
    agreed = _agreed(setup)
    _label_map(group, dataset, agreed, setup.federation_file)
    cases, total = [], sum(map(len, parts.values()))
    for part, entries in parts.items():
        for entry in entries:
            cases.append(_check_case(group, entry, dataset.root, part, agreed))
            progress("reading cases", len(cases), total)
    if not group.failed:
        group.ok("cases", f"{total} cases read; every image has its label, in its place and in the map")
    check_set(group, cases, agreed.labels, facts)
    facts.update(layout=dataset.layout, cases={part: len(entries) for part, entries in parts.items()})
    return not group.failed


def _parts(group: Group, dataset: Dataset, split: Path) -> dict[str, list[Entry]]:
    """The parts as a run would deal them; where it would refuse to, as listed."""
    bare = [entry for entry in dataset.entries if entry.label is None]
    if bare:
        group.note("no label", f"{len(bare)} cases have no label: nobody trains or measures on them",
                   f"the first: {named(bare[0], dataset.root)}")  # fmt: skip
    check_parts(group, dataset)
    if dataset.layout == "dicom":
        _check_patients(group, dataset)
    try:
        return assign(dataset, split)
    except DataError as error:
        if not group.failed:
            group.error("parts", str(error))
        labelled = [entry for entry in dataset.entries if entry.label is not None]
        return {part: [entry for entry in labelled if (entry.part or "training") == part] for part in PARTS}


def _check_patients(group: Group, dataset: Dataset) -> None:
    """A PatientID that tells nobody apart is not used, and two series of one person may come into two parts."""
    first = dataset.entries[0]
    assert isinstance(first.image, Path)
    if len(dataset.entries) > 1 and check_series(first.image, first.where) != first.subject:
        group.warning("subject", "PatientID is empty, or the same in all series: each is taken for another person's",
                      str(dataset.root), "give each person a PatientID of their own when pseudonymising")  # fmt: skip


def _label_map(group: Group, dataset: Dataset, agreed: Agreed, federation: Path) -> None:
    """What the data calls a value or a channel, against what the federation does. Classes by name need no order."""
    by_name = any(isinstance(e.label, tuple) and any(isinstance(c, str) for c in e.label) for e in dataset.entries)
    for key, one, own, ours in (
        ("labels", "label", () if by_name else dataset.labels, agreed.labels),
        ("modality", "channel", dataset.modality, agreed.modality),
    ):
        where = f"{dataset.root}; {federation}: task.{key}"
        for value, (listed, word) in enumerate(zip(own, ours, strict=False)):
            if listed.strip().casefold() != word.strip().casefold():
                group.error("label map", f"{one} {value} is {listed!r} in the data's own listing, here {word!r} is "
                            "agreed", where, f"renumber each {one} in the data, or agree on another order")  # fmt: skip
        if ours and len(own) > len(ours):
            group.error("label map", f"the data names {len(own)} {one}s, the federation {len(ours)}", where,
                        f"agree on the {one}s, or join some in the data")  # fmt: skip


def _check_case(group: Group, entry: Entry, root: Path, part: str, agreed: Agreed) -> Case:
    case = Case(entry, part, named(entry, root))
    image = _decoded(group, entry.image, case.where, "image", agreed.dims)
    if image is not None:
        case.shape, placed = image.shape, _check_affine(group, case, image, "image")
        case.spacing = image.spacing if placed else ()
        _check_image(group, case, image, agreed.channels)
    if isinstance(entry.label, tuple):
        _check_classes(group, case, entry.label, agreed)
    elif isinstance(entry.label, Path):
        label = _decoded(group, entry.label, case.where, "label", 3)
        if label is not None:
            _check_mask(group, case, label, agreed.labels)
            if _check_affine(group, case, label, "label") and image is not None and placed:
                _check_place(group, case, image, label)
    return case


def _decoded(group: Group, source: Path | np.ndarray, where: str, what: str, dims: int) -> Scan | None:
    try:
        return decode(source, dims)
    except DataError as error:
        found = str(error).removeprefix("the file ")
        group.error("unreadable", f"the {what} {found}", where, "copy it again from its source, or take the case out")
        return None


def _check_image(group: Group, case: Case, image: Scan, channels: int) -> None:
    voxels = image.voxels
    if len(voxels) != channels:
        group.error("channels", f"the image has {len(voxels)} channels; task.channels says {channels}", case.where,
                    "convert it, or take the case out")  # fmt: skip
    if not np.isfinite(voxels).all():
        bad = int(voxels.size - np.isfinite(voxels).sum())
        group.error("not finite", f"{bad} voxels of the image are not finite (NaN or infinite)", case.where,
                    "convert it again; fill what was outside the field of view with a number")  # fmt: skip
    elif voxels.min() == voxels.max():
        group.warning("constant", f"every voxel of the image is {voxels.flat[0]:g}", case.where,
                      "look at it: an empty series?")  # fmt: skip
        return
    plain = np.ascontiguousarray(voxels, np.float32)
    case.digest = blake3(repr(plain.shape).encode() + plain.tobytes()).hexdigest()


def _check_classes(group: Group, case: Case, classes: Sequence[str | int], agreed: Agreed) -> None:
    labels = agreed.labels
    if len(classes) != 1 and not agreed.several:
        group.error("classes", f"{len(classes)} classes; several at once need task.multi_label = true", case.where,
                    "keep one, or agree on it with the other labs")  # fmt: skip
    for given in classes:
        index = labels.index(given) if given in labels else given
        if labels and not (isinstance(index, int) and 0 <= index < len(labels)):
            group.error("unknown label", f"class {given!r} is unknown; task.labels has {', '.join(labels)}", case.where,
                        "correct the class, or agree on it with the other labs")  # fmt: skip
        elif isinstance(index, int):
            case.counts[index] += 1


def _check_mask(group: Group, case: Case, label: Scan, labels: Sequence[str]) -> None:
    if len(label.voxels) != 1:
        group.error("channels", f"the label has {len(label.voxels)} channels; a mask has one", case.where,
                    "convert it to one volume of label values")  # fmt: skip
    values, counts = np.unique(label.voxels, return_counts=True)
    known = np.isin(values, np.arange(len(labels))) if labels else np.ones(len(values), bool)
    case.counts.update({int(v): int(n) for v, n, ok in zip(values, counts, known, strict=True) if ok})
    if not known.all():
        shown = ", ".join(f"{value:g}" for value in values[~known][:8])
        group.error("unknown label", f"label values {shown} are unknown; task.labels has 0 to {len(labels) - 1}",
                    case.where, "correct the mask, or agree on the label with the other labs")  # fmt: skip
    elif not values.any():
        group.warning("empty mask", "no voxel is labelled", case.where, "right if the structure is not there; look")


def _check_affine(group: Group, case: Case, scan: Scan, what: str) -> bool:
    """Whether its voxels have a place in the world, if they claim one."""
    if scan.affine is None:
        return True
    if not np.isfinite(scan.affine).all():
        fault = "has numbers that are not finite"
    elif abs(np.linalg.det(scan.affine[:3, :3])) <= FLAT * np.prod(np.linalg.norm(scan.affine[:3, :3], axis=0)):
        fault = "makes the volume flat: it cannot be inverted"
    else:
        return True
    group.error("affine", f"the affine of the {what} {fault}", case.where, "mend its header, or convert it again")
    return False


def _check_place(group: Group, case: Case, image: Scan, label: Scan) -> None:
    """Shapes, then how far apart the two affines put the same corner of the volume."""
    if image.shape != label.shape:
        sizes = (" x ".join(map(str, scan.shape)) for scan in (image, label))
        group.error("shape", "image {} and label {} differ in shape".format(*sizes), case.where,
                    "resample the label to the image's grid")  # fmt: skip
        return
    if image.affine is None or label.affine is None or np.allclose(image.affine, label.affine, rtol=0, atol=1e-6):
        return
    away, millimetres = apart(image.affine, label.affine, image.shape)
    where = misplaced(away, millimetres)
    if away > MISPLACED:
        ways = ["".join(_axes(scan.affine)) for scan in (image, label)]
        turned = f"; orientation {ways[0]} and {ways[1]}" if ways[0] != ways[1] else ""
        group.error("affine", where + turned, case.where, "resample the label to the image's grid, or mend its header")
    elif away > SAME_PLACE:
        group.warning("affine", where, case.where, "copy the image's affine into the label if both show one grid")


def _axes(affine: np.ndarray | None) -> tuple[str, ...]:
    from nibabel.orientations import aff2axcodes

    return tuple(str(code) for code in aff2axcodes(affine))
