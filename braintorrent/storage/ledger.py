"""What this peer did and believes: its lives, versions, merges and metrics, and other peers' standing.

What shall stay said has an entry in the chain (chain.py), in the same transaction as its rows.

A version exists once `publish` returns, and not before: one transaction holds the exact signed bytes and
the merge that led to them, and a restart sends those bytes again. An own version is never overwritten.

Facts that a crash may lose without harm (whether bytes are held can be seen on disk, a refusal is found
again) are written with the next transaction or `flush`; noting them never waits for the disk. The other
calls wait for it, for a while on a busy one: make them from a thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from braintorrent.protocol.entry import MAX_REFUSED
from braintorrent.protocol.entry import Entry as Standing
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version, next_incarnation
from braintorrent.records import Entry, Identity, digest, open_announcement, open_entry
from braintorrent.storage import chain
from braintorrent.storage.database import Database
from braintorrent.storage.history import Measured, Merged, read_merges, read_standing, write_merge
from braintorrent.storage.proving import Finding, prove
from braintorrent.storage.seal import Seal, at_rest


class Ledger:
    """The ledger at `path`; use in `with`. Any thread may call.

    identity: who signs what is written; read_only instead, also beside a running node. glance: read only, for a
    moment, leaving no trace of it where nobody writes.
    """

    def __init__(
        self, path: Path, *, identity: Identity | None = None, read_only: bool = False, glance: bool = False
    ) -> None:  # fmt: skip
        read_only = read_only or glance
        if read_only == (identity is not None):
            raise ValueError("a ledger is opened with the identity that signs what is written, or read only")
        self._identity = identity
        self._seal = None if identity is None else Seal(path, identity)
        try:
            anchor = None if identity is None else lambda sql: chain.anchor(sql, identity)
            self._database = Database(path, anchor, at_rest=glance and at_rest(path))
        except BaseException:
            if self._seal is not None:
                self._seal.close(None)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what was noted, close, and seal the file unless others write to it. Idempotent."""
        if self._seal is None:
            self._database.close()
        else:
            self._seal.close(self._database.close)

    def flush(self) -> None:
        """Make what was noted durable. Waits for the disk."""
        self._database.flush()

    # ------------------------------------------------------------- the chain

    def record(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Add an entry, durable on return. body: names and plain values (records/entry.py)."""
        with self._database.transaction() as sql:
            return self._append(sql, kind, body)

    def chain(self, *kinds: str) -> Iterator[Entry]:
        """Every entry in order, or of some kinds; each verified by itself (BadMessage), not how they are linked."""
        return (open_entry(raw) for *_, raw in chain.read(self._chained, *kinds))

    def keep_notice(self, raw: bytes, state: str) -> None:
        """Keep a signed notice, or its new state: own, accepted, waiting, refused. Durable on return."""
        statement = "INSERT INTO notice VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"
        with self._database.transaction() as sql:
            sql.execute(statement, (digest(raw), raw, state, time.time()))

    def drop_notices(self, raws: Iterable[bytes]) -> None:
        """Do without these notices: outdated, or of somebody trusted no more. Durable on return."""
        with self._database.transaction() as sql:
            sql.executemany("DELETE FROM notice WHERE digest = ?", [(digest(raw),) for raw in raws])

    def notices(self) -> list[tuple[bytes, str]]:
        """Every notice with its state, in the order in which they came."""
        return self._chained("SELECT raw, state FROM notice ORDER BY unix, digest")

    def _append(self, sql: sqlite3.Connection, kind: str, body: Mapping[str, Any]) -> Entry:
        assert self._identity is not None  # else SQLite refuses to write
        return chain.append(sql, self._identity, kind, body)

    def _chained(self, query: str, *values: Any) -> list[Any]:
        """The answer to a query of what an older release did not have."""
        return self._database.rows(query, *values) if self._database.format > 1 else []

    # ------------------------------------------------------------- own lives and versions

    def begin_incarnation(self, unix_ms: int, heard: int = 0, files: Mapping[str, str] | None = None) -> int:
        """A new life's number, above all before it, durable on return (see protocol.version.next_incarnation).

        files: name -> digest of what the life begins with.
        """
        with self._database.transaction() as sql:
            last = sql.execute(
                "SELECT max(i) FROM (SELECT max(incarnation) AS i FROM life"
                " UNION SELECT max(incarnation) FROM announcement WHERE own)"
            ).fetchone()[0]
            incarnation = next_incarnation(last or 0, unix_ms, heard)
            sql.execute("INSERT INTO life VALUES (?, ?)", (incarnation, time.time()))
            self._append(sql, "life", chain.life(incarnation, files))
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
                self._merge(sql, merged, a.version)
            self._append(sql, "published", chain.published(a))

    def lived(self) -> bool:
        """Whether a node ever ran on it: a ledger begins with the first lab that is trusted."""
        return bool(self._database.rows("SELECT 1 FROM life LIMIT 1"))

    def elapsed(self) -> float:
        """Seconds of earlier lives, each from its start to its last publication."""
        rows = self._database.rows(
            "SELECT max(a.unix) - l.unix FROM life l JOIN announcement a ON a.own AND a.incarnation = l.incarnation"
            " GROUP BY l.incarnation"
        )
        return sum(max(0.0, float(seconds)) for (seconds,) in rows)

    def newest(self) -> Announcement | None:
        """The newest own version, None before the first."""
        query = "SELECT raw FROM announcement WHERE own ORDER BY incarnation DESC, counter DESC LIMIT 1"
        found = self._database.rows(query)
        return open_announcement(found[0][0]) if found else None

    def own(self) -> list[Announcement]:
        """Every own version, in order."""
        query = "SELECT raw FROM announcement WHERE own ORDER BY incarnation, counter"
        return [open_announcement(raw) for (raw,) in self._database.rows(query)]

    def published(self) -> list[tuple[Version, float]]:
        """Every own version with the Unix time of its publication, in order."""
        query = "SELECT incarnation, counter, unix FROM announcement WHERE own ORDER BY incarnation, counter"
        return [(Version(i, c), unix) for i, c, unix in self._database.rows(query)]

    def arrivals(self) -> list[tuple[Announcement, float]]:
        """Every version that was ever whole on this disk, own ones too, with the Unix time since when, in order."""
        rows = self._database.rows("SELECT raw, unix FROM announcement ORDER BY unix")
        return [(open_announcement(raw), unix) for raw, unix in rows]

    def announced(self, author: str, version: Version) -> Announcement | None:
        """What was announced as this version, own or once held; None if it never was here."""
        query = "SELECT raw FROM announcement WHERE author = ? AND incarnation = ? AND counter = ?"
        found = self._database.rows(query, author, *version)
        return open_announcement(found[0][0]) if found else None

    def records(self) -> list[str]:
        """Digests of the records of all these versions, oldest first."""
        return [record for (record,) in self._database.rows("SELECT record FROM announcement ORDER BY unix")]

    def authors(self) -> list[tuple[str, str]]:
        """(digest, author) of the weights and records of all these versions."""
        query = "SELECT content, author FROM announcement UNION SELECT record, author FROM announcement"
        return self._database.rows(query)

    def merge(self, merged: Merged) -> None:
        """Keep a merge that no version follows, durable on return."""
        with self._database.transaction() as sql:
            self._merge(sql, merged, None)

    def _merge(self, sql: sqlite3.Connection, merged: Merged, into: Version | None) -> None:
        write_merge(sql, merged, into)
        self._append(sql, "merged", chain.merged(merged, into))

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
        """Never fetch or merge this version; an author's newest refusals are kept. Noted.

        In the chain too, but for what an author has refused beyond chain.MAX_REFUSALS in one life.
        """

        def write(sql: sqlite3.Connection) -> None:
            row = (author, *version, reason, time.time())
            new = sql.execute("INSERT OR IGNORE INTO refusal VALUES (?, ?, ?, ?, ?)", row).rowcount
            if new and not chain.full(sql, author):
                self._append(sql, "refused", chain.refused(author, version, reason))

        self._database.note_work(write)
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
            self._append(sql, "equivocation", chain.equivocation(first, second))

    def lift(self, author: str, incarnation: int) -> None:
        """A person trusts this life of the author again. Durable on return."""
        with self._database.transaction() as sql:
            statement = "UPDATE equivocation SET lifted = 1 WHERE author = ? AND incarnation = ?"
            if sql.execute(statement, (author, incarnation)).rowcount:
                self._append(sql, "lifted", chain.lifted(author, incarnation))

    def entries(self, me: str) -> dict[str, Standing]:
        """What the protocol's table knew of every author but `me`, from before this start."""
        return read_standing(self._database.rows, me)

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
        return list(read_merges(self._database.rows))

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

    def needed(self, but: Announcement | None = None) -> set[str]:
        """Digests of the blobs that must be on disk: weights and records of the versions held, `but` not for this."""
        others = "held AND (author, incarnation, counter) IS NOT (?, ?, ?)"
        version = (but.author, *but.version) if but is not None else (None, None, None)
        rows = self._database.rows(f"SELECT content, record FROM announcement WHERE {others}", *version)
        return {digest for row in rows for digest in row}

    def proved(self, me: str = "") -> list[Finding]:
        """What each check of this ledger found (proving.py), reading all of it. me: whose it must be, if known."""
        with self._database.snapshot():
            return list(prove(self._database.rows, self._database.format > 1, me))


def _row(a: Announcement) -> tuple[object, ...]:
    return (a.author, *a.version, a.content, a.record, a.raw)
