"""Write a listing of cases whose scans stay where they are.

It tells where scans lie, so only its owner may read it; grouping needs no names, so subjects are digests.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from blake3 import blake3

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import PARTS, Dataset, Entry
from braintorrent.tasks.layouts.manifest import NONE
from braintorrent.tasks.layouts.medmnist import NAMES


def write(dataset: Dataset, folder: Path) -> None:
    """List the labelled cases in `folder` with their subjects and parts: paths are absolute, no scan is copied.

    dataset.json for masks, cases.csv for classes of files, cases.npz for classes of pixels (which are copied).
    """
    entries = [entry for entry in dataset.entries if entry.label is not None]
    folder.mkdir(parents=True, exist_ok=True)
    if any(isinstance(entry.image, np.ndarray) for entry in entries):
        _arrays(dataset, entries, folder / "cases.npz")
    elif any(isinstance(entry.label, Path) for entry in entries):
        _decathlon(dataset, entries, folder / "dataset.json")
    else:
        _manifest(dataset, entries, folder / "cases.csv")


def _decathlon(dataset: Dataset, entries: Sequence[Entry], path: Path) -> None:
    cases = {
        part: [
            {"image": _absolute(entry.image), "label": _absolute(entry.label), "subject": _nameless(entry)}
            for entry in entries
            if (entry.part or "training") == part
        ]
        for part in PARTS
    }
    names = {"modality": dataset.modality, "labels": dataset.labels}
    described = {key: {str(index): name for index, name in enumerate(of)} for key, of in names.items() if of}
    counts = {"numTraining": len(cases["training"]), "numTest": len(cases["test"])}
    with _private(path, "w") as file:
        json.dump({**described, **counts, **cases}, file, indent=1)


def _manifest(dataset: Dataset, entries: Sequence[Entry], path: Path) -> None:
    with _private(path, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "subject", "split"])
        for entry in entries:
            label = "|".join(str(dataset.labels[c] if isinstance(c, int) else c) for c in entry.label)  # type: ignore[union-attr]
            writer.writerow([_absolute(entry.image), label or NONE, _nameless(entry), entry.part])


def _arrays(dataset: Dataset, entries: Sequence[Entry], path: Path) -> None:
    arrays: dict[str, np.ndarray] = {"classes": np.array(dataset.labels)} if dataset.labels else {}
    several = any(len(entry.label or ()) != 1 for entry in entries)  # type: ignore[arg-type]
    top = len(dataset.labels) or 1 + max((int(c) for entry in entries for c in entry.label or ()), default=0)  # type: ignore[union-attr]
    for part, name in NAMES.items():
        mine = [entry for entry in entries if (entry.part or "training") == part]
        if not mine and part != "training":
            continue
        try:
            arrays[f"{name}_images"] = np.stack([np.asarray(entry.image) for entry in mine])
        except ValueError:
            raise DataError(f"{dataset.root}: images of different sizes do not fit one array") from None
        hot = np.zeros((len(mine), top), np.uint8)
        for row, entry in zip(hot, mine, strict=True):
            row[[int(c) for c in entry.label or ()]] = 1  # type: ignore[union-attr]
        arrays[f"{name}_labels"] = hot if several else hot.argmax(1)[:, None]
        arrays[f"{name}_subjects"] = np.array([_nameless(entry) for entry in mine])
    with _private(path, "wb") as file:
        np.savez(file, **arrays)


def _nameless(entry: Entry) -> str:
    return blake3(entry.subject.encode(errors="surrogateescape")).hexdigest(8)


def _private(path: Path, mode: str) -> IO[Any]:
    """The file, emptied, for its owner alone; lines of text end as they are written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # it may have been there
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    return os.fdopen(descriptor, mode, **text)


def _absolute(path: object) -> str:
    assert isinstance(path, Path)
    return str(path.resolve())
