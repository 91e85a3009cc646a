"""One lab's data to several labs' folders, and back to one for pooled training. Scans stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from braintorrent.errors import DataError
from braintorrent.experiments.dealing import FEW, Rule, Subject, deal, with_parts
from braintorrent.tasks.layouts import PARTS, Dataset, Entry, open_dataset
from braintorrent.tasks.layouts.parts import assign
from braintorrent.tasks.layouts.write import write
from braintorrent.workbench.proposing_facts import classes_of, kind_of, labelled
from braintorrent.workbench.proposing_headers import mask

Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much


@dataclass(frozen=True, slots=True)
class Share:
    """What one lab got. counts: cases by part; amounts: by label, mean mL per case or number of images.

    absent: classes that a part lacks, by part.
    """

    name: str
    folder: Path
    counts: Mapping[str, int]
    amounts: tuple[float, ...]
    absent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def split(
    dataset: Dataset, folders: Mapping[str, Path], labels: Sequence[str], by: Rule = "even", seed: int = 0, *,
    measure: bool = False, progress: Progress = lambda *_: None,
) -> list[Share]:  # fmt: skip
    """Deal the labelled cases to labs by subject and write each lab's listing; folders: lab -> where it goes.

    Parts that the data has are kept: each lab gets its share of each. Where there is only training, a test and a
    validation part are dealt from it; where only validation is missing, that. Images without a label are left out.
    measure: also read the masks, for `Share.amounts`; done anyway by "label". DataError: too few subjects.
    """
    assign(dataset, None)  # DataError if a subject lies in two parts: they might go to two labs
    subjects = _subjects(dataset, labels, measure or by == "label", progress)
    given = {subject.part for subject in subjects}
    missing = () if "validation" in given else ("validation",) if "test" in given else ("test", "validation")
    _enough(dataset, subjects, len(folders), {part: FEW if missing and part == "training" else 1 for part in given})
    shares: dict[str, list[tuple[Subject, str]]] = {name: [] for name in folders}
    for part in PARTS:
        mine = [subject for subject in subjects if subject.part == part]
        for name, dealt in zip(folders, deal(mine, len(folders), by, seed), strict=True):
            shares[name] += with_parts(dealt, missing) if part == "training" else [(s, part) for s in dealt]
    return [_write(dataset, name, folder, shares[name], labels) for name, folder in folders.items()]


def pool(labs: Sequence[Path], folder: Path) -> Path:
    """All labs' cases as one lab, in `folder`."""
    opened = [open_dataset(lab) for lab in labs]
    entries = tuple(
        replace(entry, part=part)
        for part in PARTS
        for dataset in opened
        for entry in dataset.entries
        if entry.part == part
    )
    write(replace(opened[0], root=folder, entries=entries), folder)
    return folder


def counts(folder: Path) -> dict[str, int]:
    """Cases by part of a lab folder that `split` wrote."""
    found = Counter(entry.part for entry in open_dataset(folder).entries if entry.label is not None)
    return {part: found[part] for part in PARTS}


def _subjects(dataset: Dataset, labels: Sequence[str], measure: bool, progress: Progress) -> list[Subject]:
    """Labelled cases by subject and part, in the listing's order; no part means training."""
    kind = kind_of(dataset, labelled(dataset))
    entries = [entry for entry in dataset.entries if entry.label is not None]
    grouped: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        grouped.setdefault((entry.part or "training", entry.subject), []).append(entry)
    subjects, frequency = [], Counter(_names(entry, labels) for entry in entries) if kind == "classification" else {}
    for number, ((part, _), cases) in enumerate(grouped.items(), 1):
        if kind == "classification":
            rarest = min((_names(case, labels) for case in cases), key=lambda names: (frequency[names], names))
            held = [_names(case, labels) for case in cases]
            amounts = tuple(float(sum(label in names for names in held)) for label in labels)
            subjects.append(Subject(part, tuple(cases), "+".join(rarest) or "none", amounts))
        else:
            amounts = _millilitres(cases, len(labels)) if measure else ()
            subjects.append(Subject(part, tuple(cases), "", amounts))
            if measure:
                progress("reading masks", number, len(grouped))
    return subjects


def _names(entry: Entry, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(labels[one] if isinstance(one, int) else one for one in classes_of(entry)))


def _millilitres(cases: Sequence[Entry], labels: int) -> tuple[float, ...]:
    import numpy as np

    total = np.zeros(labels)
    for case in cases:
        values, volume = mask(case)
        if values.min() < 0 or values.max() >= labels:
            raise DataError(f"{case.where}: the mask holds {values.max()}; labels are 0 to {labels - 1}")
        total += np.bincount(values.ravel(), minlength=labels) * volume / 1000
    return tuple(total.tolist())


def _enough(dataset: Dataset, subjects: Sequence[Subject], labs: int, needs: Mapping[str, int]) -> None:
    for part, need in needs.items():
        there = sum(subject.part == part for subject in subjects)
        if there < need * labs:
            noun, verb = ("subject", "is") if there == 1 else ("subjects", "are")
            raise DataError(
                f"{dataset.root}: {there} labelled {noun} in {part} {verb} too few for {labs} labs; each needs {need}"
            )


def _write(dataset: Dataset, name: str, folder: Path, share: list[tuple[Subject, str]], labels: Sequence[str]) -> Share:
    share = sorted(share, key=lambda one: PARTS.index(one[1]))
    entries = tuple(replace(entry, part=part) for subject, part in share for entry in subject.entries)
    write(replace(dataset, root=folder, entries=entries), folder)
    found = Counter(entry.part for entry in entries)
    counts = {part: found[part] for part in PARTS}
    sums = tuple(sum(column) for column in zip(*(subject.amounts for subject, _ in share), strict=True))
    if any(isinstance(entry.label, Path) for entry in entries):
        return Share(name, folder, counts, tuple(total / len(entries) for total in sums))
    return Share(name, folder, counts, sums, _absent(entries, labels))


def _absent(entries: Sequence[Entry], labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    held: dict[str, set[str]] = {}
    for entry in entries:
        held.setdefault(entry.part, set()).update(_names(entry, labels))
    lacking = {part: tuple(label for label in labels if label not in names) for part, names in held.items()}
    return {part: names for part, names in lacking.items() if names}
