"""The ledger's chain: an entry, signed and with the digest of the one before, for each thing that shall stay said.

KIND          body
anchor        how many rows an older release left, and their digest: they have no entries of their own
life          a start: its incarnation; files: name and digest of what it began with, where told (node/auditing.py)
published     an own version, its content, the digest of the announcement's signed bytes
merged        who went into an own model at what weight, who was skipped and why
refused       another's version that is never merged, and why; of an author at most MAX_REFUSALS in one life
equivocation  two announcements for one version, their digests
lifted        a person ended the quarantine of a life
roster        who is trusted changed (node/trusting.py)
rollback      back to an earlier version (node/reverting.py)
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.records import Entry, Identity, digest, sign_entry
from braintorrent.records.canonical import pack
from braintorrent.records.entry import FIRST
from braintorrent.storage.history import Merged

MAX_REFUSALS = 64  # entries about one author in one life: a chain is for good, and must not grow as another likes

# What format 1 kept for good, in the order in which it came: rows are only ever added at the end.
OLD = {
    "life": "SELECT incarnation, unix FROM life ORDER BY incarnation",
    "announcement": "SELECT author, incarnation, counter, content, record, raw, unix FROM announcement WHERE own"
    " ORDER BY incarnation, counter",
    "equivocation": "SELECT author, incarnation, counter, first, second, unix FROM equivocation ORDER BY rowid",
    "merge": "SELECT * FROM merge ORDER BY id",
    "part": "SELECT * FROM part ORDER BY merge, author",
}


def append(sql: sqlite3.Connection, identity: Identity, kind: str, body: Mapping[str, Any]) -> Entry:
    """Sign an entry and put it at the end of the chain, inside the transaction of `sql`."""
    found = sql.execute("SELECT sequence, raw FROM entry ORDER BY sequence DESC LIMIT 1").fetchone()
    sequence, previous = (found[0] + 1, digest(found[1])) if found else (1, FIRST)
    entry = sign_entry(identity, sequence, previous, int(time.time() * 1000), kind, body)
    sql.execute("INSERT INTO entry VALUES (?, ?, ?)", (sequence, kind, entry.raw))
    return entry


def anchor(sql: sqlite3.Connection, identity: Identity) -> None:
    """The first entry where an older release kept its history without any."""

    def rows(query: str, *values: Any) -> list[Any]:
        return sql.execute(query, values).fetchall()

    counts = [[table, len(rows(query))] for table, query in OLD.items()]
    append(sql, identity, "anchor", {"rows": counts, "digest": old_digest(rows, counts)})


def full(sql: sqlite3.Connection, author: str) -> bool:
    """Whether this life has MAX_REFUSALS entries about versions of `author` refused."""
    count = sql.execute(
        "SELECT count(*) FROM entry WHERE kind = 'refused' AND instr(raw, ?)"
        " AND sequence > (SELECT coalesce(max(sequence), 0) FROM entry WHERE kind = 'life')",
        (author.encode(),),
    ).fetchone()[0]
    return bool(count >= MAX_REFUSALS)


def read(rows: Callable[..., list[Any]], *kinds: str) -> Iterator[tuple[int, str, bytes]]:
    """(sequence, kind, signed bytes) of every entry in order, or of some kinds, a few at a time."""
    wanted = f"AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
    query, after = f"SELECT sequence, kind, raw FROM entry WHERE sequence > ? {wanted} ORDER BY sequence LIMIT 256", 0
    while found := rows(query, after, *kinds):
        after = found[-1][0]
        yield from found


def old_digest(rows: Callable[..., list[Any]], counts: Iterable[Sequence[Any]]) -> str:
    """Digest over the first rows, `counts` of them, of each table that an older release wrote."""
    return digest(pack([[list(row) for row in rows(f"{OLD[table]} LIMIT ?", count)] for table, count in counts]))


# ------------------------------------------------------------- bodies


def life(incarnation: int, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A start, and the digests of the files it began with."""
    return {"incarnation": incarnation, **({"files": [list(of) for of in sorted(files.items())]} if files else {})}


def published(a: Announcement) -> dict[str, Any]:
    """An own version."""
    return {"version": list(a.version), "content": a.content, "announcement": digest(a.raw)}


def merged(merged: Merged, into: Version | None) -> dict[str, Any]:
    """A merge, and the own version it led to. parts: rows of author, incarnation, counter, and Part's other fields."""
    m = merged
    parts = {**m.included, **m.skipped}
    rows = [
        [author, *p.version, p.content, int(p.samples), float(p.weight), float(p.norm), p.reason]
        for author, p in sorted(parts.items())
    ]
    flags = {"below_quorum": bool(m.below_quorum), "adopt": bool(m.adopt), "last": bool(m.last)}
    return {"into": list(into) if into else None, "unix": float(m.unix), "parts": rows, **flags}


def refused(author: str, version: Version, reason: str) -> dict[str, Any]:
    """Another's version that is never merged."""
    return {"peer": author, "version": list(version), "reason": reason}


def equivocation(first: Announcement, second: Announcement) -> dict[str, Any]:
    """Two contents for one version."""
    both = [digest(first.raw), digest(second.raw)]
    return {"peer": first.author, "version": list(first.version), "announcements": both}


def lifted(author: str, incarnation: int) -> dict[str, Any]:
    """The end of a quarantine."""
    return {"peer": author, "incarnation": incarnation}
