"""Who trains, who validates, who tests: by subject, recorded, and never changed after the first run.

Where a layout gives parts they win. If it gives no validation cases, they are dealt out of its training cases, and
test cases too if it gives none. The record holds a digest of each subject, never its name.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from blake3 import blake3

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import PARTS, Dataset, Entry

TEST = 0.25  # of the subjects that are dealt
VALIDATION = 0.15  # of the rest
FEWEST = 3  # subjects; of fewer all are for training
FORMAT = 1


def assign(dataset: Dataset, record: Path | None, seed: int = 0, *, keep: bool = True) -> dict[str, list[Entry]]:
    """The labelled cases of each of PARTS, in the listing's order.

    record: a JSON file of this lab's own; what it says about a subject holds, new subjects are added to it (unless
    keep is False: nothing is written). DataError if a subject would be in two parts, or in another than recorded.
    """
    entries = [entry for entry in dataset.entries if entry.label is not None]
    given, open_parts = _given(entries)
    recorded = _read(record) if record else {}
    digests = {entry.subject: _digest(entry.subject) for entry in entries}
    _check(entries, given, {subject: recorded[d] for subject, d in digests.items() if d in recorded}, record)
    parts = {digests[subject]: part for subject, part in given.items() if part}
    parts |= {d: recorded[d] for subject, d in digests.items() if d in recorded and not given[subject]}
    dealt = [d for subject, d in digests.items() if not given[subject]]
    parts |= _deal(dealt, parts, open_parts, seed)
    if record and keep and (added := {d: part for d, part in parts.items() if d not in recorded}):
        _write(record, recorded | added)
    found: dict[str, list[Entry]] = {part: [] for part in PARTS}
    for entry in entries:
        found[parts[digests[entry.subject]]].append(entry)
    if not found["training"]:
        raise DataError(f"{dataset.root}: no training cases with a label")
    return found


def _given(entries: Iterable[Entry]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Subject -> the part the layout gives, or "" where it is to be dealt, and the parts that are dealt to.

    DataError if a subject is in two.
    """
    entries = list(entries)
    listed = {entry.part for entry in entries}
    open_parts = ("validation",) if "validation" not in listed else ()
    if open_parts and "test" not in listed:
        open_parts = ("test", "validation")
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.part:
            before = first.setdefault(entry.subject, entry)
            if before.part != entry.part:
                raise DataError(
                    f"{entry.where}: its subject is in {entry.part} here and in {before.part} at "
                    f"{before.place}; keep a subject's cases in one part"
                )
    given = {s: e.part for s, e in first.items() if not (e.part == "training" and open_parts)}
    return {entry.subject: given.get(entry.subject, "") for entry in entries}, open_parts


def _check(
    entries: Iterable[Entry], given: Mapping[str, str], recorded: Mapping[str, str], record: Path | None
) -> None:
    for entry in entries:
        before, now = recorded.get(entry.subject), given[entry.subject]
        if before and now and before != now:
            raise DataError(
                f"{entry.where}: its subject is in {now} now, and was in {before} at the first run ({record}); put it "
                "back, or delete that file to begin anew with a fresh model"
            )


def _deal(subjects: Iterable[str], known: Mapping[str, str], open_parts: tuple[str, ...], seed: int) -> dict[str, str]:
    """Digest -> part for those not known: the parts are filled up to their shares in an order drawn from the seed."""
    subjects = list(subjects)
    counts = Counter(known[subject] for subject in subjects if subject in known)
    wanted, left = {}, len(subjects)
    for part, share in (("test", TEST), ("validation", VALIDATION)):
        if part in open_parts and len(subjects) >= FEWEST:
            wanted[part] = max(1, round(share * left))
            left -= wanted[part]
    dealt: dict[str, str] = {}
    for subject in sorted((s for s in subjects if s not in known), key=lambda s: _digest(f"{seed} {s}")):
        part = next((part for part, count in wanted.items() if counts[part] < count), "training")
        dealt[subject] = part
        counts[part] += 1
    return dealt


def _digest(text: str) -> str:
    return blake3(text.encode(errors="surrogateescape")).hexdigest(16)


def _read(record: Path) -> dict[str, str]:
    try:
        said = json.loads(record.read_bytes())
        parts: dict[str, str] = said["parts"]
        if said["format"] != FORMAT or not set(parts.values()) <= set(PARTS):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{record}: not a record of parts that this release reads; restore it from a backup") from None
    return parts


def _write(record: Path, parts: Mapping[str, str]) -> None:
    """Replace the record in one step. (storage/, which has this too, is a room above.)"""
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = record.with_name(f".{record.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": FORMAT, "parts": parts}, file, indent=0, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(record)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{record}: the parts cannot be recorded ({error.strerror})") from None
