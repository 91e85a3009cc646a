"""What this peer did and believes: its lives, versions, merges and metrics, and other peers' standing.

A version exists once `publish` returns, and not before: one transaction holds the exact signed bytes and
the merge that led to them, and a restart sends those bytes again. An own version is never overwritten.

Facts that a crash may lose without harm (whether bytes are held can be seen on disk, a refusal is found
again) are written with the next transaction or `flush`; noting them never waits for the disk. The other
calls wait for it, for a while on a busy one: make them from a thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from braintorrent.errors import BadMessage
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.table import MAX_REFUSED, MAX_SEEN, Entry
from braintorrent.protocol.version import Version, next_incarnation
from braintorrent.records import open_announcement
from braintorrent.storage.database import Database
from braintorrent.storage.history import Measured, Merged, Part

if TYPE_CHECKING:
    from braintorrent.storage.blobs import BlobStore


class Ledger:
    """The ledger at `path`; use as `with Ledger(path)`. Any thread may call. `read_only`: beside a running node."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, read_only=read_only)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what was noted, and close. Idempotent."""
        self._database.close()

    def flush(self) -> None:
        """Make what was noted durable. Waits for the disk."""
        self._database.flush()

    # ------------------------------------------------------------- own lives and versions

    def begin_incarnation(self, unix_ms: int, heard: int = 0) -> int:
        """A new life's number, above all before it, durable on return (see protocol.version.next_incarnation)."""
        with self._database.transaction() as sql:
            last = sql.execute(
                "SELECT max(i) FROM (SELECT max(incarnation) AS i FROM life"
                " UNION SELECT max(incarnation) FROM announcement WHERE own)"
            ).fetchone()[0]
            incarnation = next_incarnation(last or 0, unix_ms, heard)
            sql.execute("INSERT INTO life VALUES (?, ?)", (incarnation, time.time()))
        return incarnation

    def publish(self, announcement: Announcement, merged: Merged | None = None) -> None:
        """Make an own version durable, with the merge it was trained from, before anyone hears of it.

        Its blobs must be on disk. Publishing the same bytes again changes nothing; ValueError if the version
        has other bytes already, or is not newer than the newest.
        """
        a = announcement
        newest = self.newest()
        if newest is not None and newest.raw == a.raw:
            return
        if newest is not None and a.version <= newest.version:
            raise ValueError(f"version {a.version} is not newer than {newest.version}, published before")
        with self._database.transaction() as sql:
            sql.execute("UPDATE announcement SET held = 0 WHERE own")
            sql.execute("INSERT INTO announcement VALUES (?, ?, ?, ?, ?, ?, 1, 1, ?)", (*_row(a), time.time()))
            if merged is not None:
                _insert(sql, merged, a.version)

    def elapsed(self) -> float:
        """Seconds of earlier lives, each from its start to its last publication."""
        rows = self._database.rows(
            "SELECT max(a.unix) - l.unix FROM life l JOIN announcement a ON a.own AND a.incarnation = l.incarnation"
            " GROUP BY l.incarnation"
        )
        return sum(max(0.0, float(seconds)) for (seconds,) in rows)

    def newest(self) -> Announcement | None:
        """The newest own version, None before the first."""
        newest = "SELECT raw FROM announcement WHERE own ORDER BY incarnation DESC, counter DESC LIMIT 1"
        found = self._database.rows(newest)
        return open_announcement(found[0][0]) if found else None

    def published(self) -> list[tuple[Version, float]]:
        """Every own version with the Unix time of its publication, in order."""
        rows = self._database.rows(
            "SELECT incarnation, counter, unix FROM announcement WHERE own ORDER BY incarnation, counter"
        )
        return [(Version(i, c), unix) for i, c, unix in rows]

    def merge(self, merged: Merged) -> None:
        """Keep a merge that no version follows, durable on return."""
        with self._database.transaction() as sql:
            _insert(sql, merged, None)

    # ------------------------------------------------------------- others

    def mark_held(self, announcement: Announcement) -> None:
        """The bytes of this version, record and weights, are verified on this disk. Noted."""
        self._database.note(
            "INSERT INTO announcement VALUES (?, ?, ?, ?, ?, ?, 0, 1, ?)"
            " ON CONFLICT DO UPDATE SET held = 1 WHERE content = excluded.content",
            *_row(announcement), time.time(),
        )  # fmt: skip

    def forget(self, announcement: Announcement) -> None:
        """Those bytes may go. Durable on return: afterwards, remove the blobs nobody else needs."""
        with self._database.transaction() as sql:
            sql.execute(
                "UPDATE announcement SET held = 0 WHERE author = ? AND incarnation = ? AND counter = ?",
                (announcement.author, *announcement.version),
            )

    def hold_only(self, announcements: Iterable[Announcement]) -> None:
        """The bytes of these versions, and no others, are needed. Durable on return."""
        with self._database.transaction() as sql:
            sql.execute("UPDATE announcement SET held = 0")
            for a in announcements:
                sql.execute(
                    "UPDATE announcement SET held = 1 WHERE author = ? AND incarnation = ? AND counter = ?",
                    (a.author, *a.version),
                )

    def refuse(self, author: str, version: Version, reason: str) -> None:
        """Never fetch or merge this version; an author's newest refusals are kept. Noted."""
        statement = "INSERT OR IGNORE INTO refusal VALUES (?, ?, ?, ?, ?)"
        self._database.note(statement, author, *version, reason, time.time())
        self._database.note(
            "DELETE FROM refusal WHERE author = ? AND (incarnation, counter) NOT IN (SELECT incarnation, counter"
            " FROM refusal WHERE author = ? ORDER BY incarnation DESC, counter DESC LIMIT ?)",
            author, author, MAX_REFUSED,
        )  # fmt: skip

    def equivocated(self, first: Announcement, second: Announcement) -> None:
        """Two contents for one version: keep both as proof, quarantine that incarnation. Durable on return."""
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT INTO equivocation VALUES (?, ?, ?, ?, ?, ?, 0)",
                (first.author, *first.version, first.raw, second.raw, time.time()),
            )

    def lift(self, author: str, incarnation: int) -> None:
        """A person trusts this life of the author again. Durable on return."""
        with self._database.transaction() as sql:
            statement = "UPDATE equivocation SET lifted = 1 WHERE author = ? AND incarnation = ?"
            sql.execute(statement, (author, incarnation))

    def entries(self, me: str) -> dict[str, Entry]:
        """What the protocol's table knew of every author but `me`, from before this start."""
        entries: dict[str, Entry] = {}
        rows = self._database.rows
        for author, incarnation in rows("SELECT author, incarnation FROM equivocation WHERE NOT lifted"):
            entry = entries.setdefault(author, Entry())
            entry.quarantined = entry.quarantined | {incarnation}
        for author, reason, *version in rows(_NEWEST.format("author, reason", "refusal"), MAX_REFUSED):
            entries.setdefault(author, Entry()).refused[Version(*version)] = reason
        merged = "SELECT author, incarnation, counter FROM part WHERE reason = '' ORDER BY incarnation, counter"
        for author, *version in rows(merged):
            entries.setdefault(author, Entry()).merged = Version(*version)
        for raw, held, *_ in rows(_NEWEST.format("raw, held", "announcement"), MAX_SEEN):
            a = open_announcement(raw)
            entry = entries.setdefault(a.author, Entry())
            entry.seen[a.version] = a
            if held and entry.usable(a.version):
                entry.held = a
        entries.pop(me, None)
        return entries

    # ------------------------------------------------------------- figures

    def measured(self, version: Version, stage: str, metrics: Mapping[str, float]) -> None:
        """Own validation metrics, of stage "own" (after local steps), "merged" or "undone" (such a merge). Noted."""
        for name, value in metrics.items():
            statement = "INSERT INTO metric VALUES (NULL, ?, ?, ?, ?, ?, ?)"
            self._database.note(statement, time.time(), *version, stage, name, value)

    def metrics(self) -> list[Measured]:
        """All of them, in order of time."""
        found = self._database.rows("SELECT unix, incarnation, counter, stage, name, value FROM metric ORDER BY id")
        return [Measured(unix, Version(i, c), *rest) for unix, i, c, *rest in found]

    def best(self, score: str) -> tuple[float | None, int]:
        """The best own-stage value of metric `score` so far, and how many versions ago it was."""
        best, since = None, 0
        for m in self.metrics():
            if m.stage == "own" and m.name == score and m.value is not None:
                best, since = (m.value, 0) if best is None or m.value > best else (best, since + 1)
        return best, since

    def merges(self) -> list[tuple[Version | None, Merged]]:
        """All of them, in order, with the version each led to."""
        parts: dict[int, dict[str, Part]] = {}
        columns = "merge, author, incarnation, counter, content, samples, weight, norm, reason"
        for merge, author, i, c, *rest in self._database.rows(f"SELECT {columns} FROM part ORDER BY author"):
            parts.setdefault(merge, {})[author] = Part(Version(i, c), *rest)
        found = []
        for merge, unix, i, c, *flags in self._database.rows("SELECT * FROM merge ORDER BY id"):
            of = parts.get(merge, {})
            included = {author: part for author, part in of.items() if not part.reason}
            skipped = {author: part for author, part in of.items() if part.reason}
            version = None if i is None else Version(i, c)
            found.append((version, Merged(unix, included, skipped, *map(bool, flags))))
        return found

    def count(self, peer: str, received: int, sent: int) -> None:
        """Add to the bytes exchanged with a peer. Noted."""
        self._database.note(
            "INSERT INTO traffic VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET received = received + excluded.received, sent = sent + excluded.sent",
            peer, received, sent,
        )  # fmt: skip

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Peer -> bytes (received, sent) over all lives."""
        return {peer: (received, sent) for peer, received, sent in self._database.rows("SELECT * FROM traffic")}

    # ------------------------------------------------------------- wholeness

    def needed(self) -> set[str]:
        """Digests of the blobs that must be on disk: weights and records of the versions held."""
        rows = self._database.rows("SELECT content, record FROM announcement WHERE held")
        return {digest for row in rows for digest in row}

    def check(self, blobs: BlobStore | None = None) -> list[str]:
        """What is wrong with this ledger, in words; empty when it is whole. Reads every needed blob if given."""
        problems = [text for (text,) in self._database.rows("PRAGMA integrity_check") if text != "ok"]
        for author, i, c, content, raw in self._database.rows(
            "SELECT author, incarnation, counter, content, raw FROM announcement"
        ):
            try:
                a = open_announcement(raw)
            except BadMessage as error:
                problems.append(f"announcement {author} {i}.{c}: {error}")
                continue
            if (a.author, a.version, a.content) != (author, Version(i, c), content):
                problems.append(f"announcement {author} {i}.{c} is filed under another name")
        if blobs is not None:
            problems += [f"blob {d} is missing or damaged" for d in sorted(self.needed()) if not blobs.verify(d)]
        return problems


_NEWEST = """
SELECT {0}, incarnation, counter FROM (
    SELECT *, row_number() OVER (PARTITION BY author ORDER BY incarnation DESC, counter DESC) AS age FROM {1}
) WHERE age <= ? ORDER BY author, incarnation, counter
"""


def _row(a: Announcement) -> tuple[object, ...]:
    return (a.author, *a.version, a.content, a.record, a.raw)


def _insert(sql: sqlite3.Connection, merged: Merged, into: Version | None) -> None:
    m = merged
    values = (m.unix, *(into or (None, None)), m.below_quorum, m.adopt, m.last)
    merge = sql.execute("INSERT INTO merge VALUES (NULL, ?, ?, ?, ?, ?, ?)", values).lastrowid
    for author, p in [*m.included.items(), *m.skipped.items()]:
        part = (merge, author, *p.version, p.content, p.samples, p.weight, p.norm, p.reason)
        sql.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", part)
