"""Data, cases against each other: one subject in two parts, doubles, labels per part, spacing and size outliers.

Outliers by the modified z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993):
0.6745 (x - median) / MAD, which one odd case among many does not move.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braintorrent.tasks.layouts import PARTS, Dataset, Entry
from braintorrent.workbench.check_findings import Group

if TYPE_CHECKING:
    from braintorrent.workbench.check_data import Case

FEWEST = 5  # cases; a median of fewer says little
FAR = 5.0  # modified z-scores; 3.5 in the reference, but sizes of crops and fields of view spread widely
LEAST_SPREAD = 0.02  # of the median: where most cases are the same, 2 % off is not odd yet


def named(entry: Entry, root: Path) -> str:
    """Listing, row, and the file's name: for the person in front of the screen, never for a log."""
    row = entry.where.removeprefix(f"{root}: ").removeprefix(f"{root}/")
    return f"{row} ({entry.image.name})" if isinstance(entry.image, Path) else row


def check_parts(group: Group, dataset: Dataset) -> None:
    """A subject that the listing puts into two parts is learnt by heart and then examined."""
    parts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for entry in dataset.entries:
        if entry.part:
            parts[entry.subject][entry.part].append(named(entry, dataset.root))
    for subject, places in parts.items():
        if len(places) > 1:
            where = "; ".join(where for rows in places.values() for where in rows)
            group.error("subject", f"subject {subject} is in {' and '.join(sorted(places, key=PARTS.index))}", where,
                        "keep all cases of a subject in one part")  # fmt: skip


def check_set(group: Group, cases: Sequence[Case], labels: Sequence[str], facts: dict[str, Any]) -> None:
    """Findings over all cases that could be read; histogram and medians go into `facts`."""
    _doubles(group, cases)
    _labels(group, cases, labels, facts)
    _outliers(group, cases, "spacing", lambda case: case.spacing, " mm", facts)
    _outliers(group, cases, "size", lambda case: case.shape, " voxels", facts)
    if not any(case.part == "validation" for case in cases):
        group.warning("no validation", "there are no validation cases: best model, rollback, stop.patience and "
                      "stop.target need them", do="put some subjects aside for validation")  # fmt: skip


def _doubles(group: Group, cases: Sequence[Case]) -> None:
    same: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.digest:
            same[case.digest].append(case)
    for twins in same.values():
        if len(twins) < 2:
            continue
        where, parts = "; ".join(case.where for case in twins), sorted({c.part for c in twins}, key=PARTS.index)
        if len(parts) > 1:
            group.error("duplicate", f"the same image is in {' and '.join(parts)}", where,
                        "keep one; what was trained on cannot be validated on")  # fmt: skip
        else:
            group.warning("duplicate", f"the same image is listed {len(twins)} times in {parts[0]}", where, "keep one")


def _labels(group: Group, cases: Sequence[Case], labels: Sequence[str], facts: dict[str, Any]) -> None:
    """How often each label occurs; what a part lacks can be neither learnt nor measured there."""
    seen: dict[str, Counter[int]] = {part: Counter() for part in PARTS}
    voxels: dict[str, Counter[int]] = {part: Counter() for part in PARTS}
    for case in cases:
        seen[case.part].update(case.counts.keys())
        voxels[case.part].update(case.counts)
    values = range(len(labels)) if labels else sorted(set().union(*seen.values()))
    names = {value: labels[value] if labels else str(value) for value in values}
    masks = any(isinstance(case.entry.label, Path) for case in cases)
    facts["labels"] = {
        name: {"cases": {part: seen[part][value] for part in PARTS if seen[part]}}
        | ({"voxels": {part: voxels[part][value] for part in PARTS if voxels[part]}} if masks else {})
        for value, name in names.items()
    }
    for part in ("training", "validation"):
        for value, name in names.items():
            if seen[part] and not seen[part][value]:
                group.warning("absent label", f"no {part} case has label {value} ({name})",
                              do="right if this lab has none; else put such subjects into both parts")  # fmt: skip


def _outliers(
    group: Group,
    cases: Sequence[Case],
    kind: str,
    measured: Callable[[Case], tuple[float, ...]],
    unit: str,
    facts: dict[str, Any],
) -> None:
    """Cases whose extent along some axis is far from the others'."""
    lengths = Counter(len(measured(case)) for case in cases if measured(case))
    if not lengths:
        return
    usual = lengths.most_common(1)[0][0]
    odd = [case for case in cases if measured(case) and len(measured(case)) != usual]
    like = [case for case in cases if len(measured(case)) == usual]
    values = np.array([measured(case) for case in like], float)
    median = np.median(values, axis=0)
    facts[f"median_{kind}"] = median.tolist()
    spread = np.maximum(np.median(abs(values - median), axis=0), LEAST_SPREAD * median)
    scores = 0.6745 * abs(values - median) / spread
    far = [case for case, score in zip(like, scores, strict=True) if score.max() > FAR and len(like) >= FEWEST]
    for case in [*odd, *far]:
        group.warning(kind, f"{kind} {_times(measured(case))}{unit}; the median is {_times(median)}", case.where,
                      "look at it: another protocol, or a wrong header?")  # fmt: skip


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values)
