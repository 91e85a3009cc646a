"""What the ledger tells of the past, and how a merge is written down and read again.

A merge also waits in the checkpoint until the version it led to is published.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from braintorrent.protocol.entry import MAX_REFUSED, MAX_SEEN, Entry
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import open_announcement


@dataclass(frozen=True, slots=True)
class Part:
    """One author's part in a merge: at a weight, or skipped for a reason.

    version: NOTHING for an own model never published. norm: ||W_j - W_own|| over the shared tensors.
    """

    version: Version = NOTHING
    content: str = ""
    samples: int = 0
    weight: float = 0.0
    norm: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Merged:
    """One merge: who was in it, who was skipped and why. Nobody is left out without a word.

    unix: seconds; adopt: a newcomer's first, without a model of its own; last: no training follows.
    """

    unix: float
    included: Mapping[str, Part] = field(default_factory=dict)
    skipped: Mapping[str, Part] = field(default_factory=dict)
    below_quorum: bool = False
    adopt: bool = False
    last: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Merged:
        """Undo `to_plain`; TypeError, KeyError or ValueError if it is not its work."""
        parts = {name: {a: _part(p) for a, p in plain[name].items()} for name in ("included", "skipped")}
        return cls(**{**plain, **parts})


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one version; `value` is None where it was not a number."""

    unix: float
    version: Version
    stage: str
    name: str
    value: float | None


def _part(plain: Mapping[str, Any]) -> Part:
    incarnation, counter = plain["version"]
    return Part(**{**plain, "version": Version(int(incarnation), int(counter))})


def write_merge(sql: sqlite3.Connection, merged: Merged, into: Version | None) -> None:
    """The rows of a merge, inside the transaction of `sql`."""
    m = merged
    values = (m.unix, *(into or (None, None)), m.below_quorum, m.adopt, m.last)
    merge = sql.execute("INSERT INTO merge VALUES (NULL, ?, ?, ?, ?, ?, ?)", values).lastrowid
    for author, p in [*m.included.items(), *m.skipped.items()]:
        part = (merge, author, *p.version, p.content, p.samples, p.weight, p.norm, p.reason)
        sql.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", part)


def read_merges(rows: Callable[..., list[Any]], skip: int = 0) -> Iterator[tuple[Version | None, Merged]]:
    """Each but the first `skip`, in order, with the version it led to. rows: the answer to a query."""
    columns = "author, incarnation, counter, content, samples, weight, norm, reason"
    for merge, unix, *into, below_quorum, adopt, last in paged(rows, "SELECT * FROM merge ORDER BY id", skip):
        included: dict[str, Part] = {}
        skipped: dict[str, Part] = {}
        for author, i, c, *rest in rows(f"SELECT {columns} FROM part WHERE merge = ? ORDER BY author", merge):
            part = Part(Version(i, c), *rest)
            (skipped if part.reason else included)[author] = part
        version = None if into[0] is None else Version(*into)
        yield version, Merged(unix, included, skipped, bool(below_quorum), bool(adopt), bool(last))


def paged(rows: Callable[..., list[Any]], query: str, skip: int = 0) -> Iterator[Any]:
    """The rows of an answer in one order, but the first `skip`, a few at a time: a ledger may be longer than memory."""
    while found := rows(f"{query} LIMIT 256 OFFSET ?", skip):
        skip += len(found)
        yield from found


def read_standing(rows: Callable[..., list[Any]], me: str) -> dict[str, Entry]:
    """What the protocol's table knew of every author but `me`. rows: the answer to a query."""
    entries: dict[str, Entry] = {}
    for author, incarnation in rows("SELECT author, incarnation FROM equivocation WHERE NOT lifted"):
        entry = entries.setdefault(author, Entry())
        entry.quarantined = entry.quarantined | {incarnation}
    for author, reason, *version in rows(_NEWEST.format("author, reason", "refusal"), MAX_REFUSED):
        entry = entries.setdefault(author, Entry())
        entry.refused = {**entry.refused, Version(*version): reason}
    merged = "SELECT author, incarnation, counter FROM part WHERE reason = '' ORDER BY incarnation, counter"
    for author, *version in rows(merged):
        entries.setdefault(author, Entry()).merged = Version(*version)
    for raw, held, *_ in rows(_NEWEST.format("raw, held", "announcement"), MAX_SEEN):
        a = open_announcement(raw)
        entry = entries.setdefault(a.author, Entry())
        entry.remember(a)
        if held and entry.usable(a.version):
            entry.held = a
    entries.pop(me, None)
    return entries


_NEWEST = """
SELECT {0}, incarnation, counter FROM (
    SELECT *, row_number() OVER (PARTITION BY author ORDER BY incarnation DESC, counter DESC) AS age FROM {1}
) WHERE age <= ? ORDER BY author, incarnation, counter
"""
