"""The ledger's SQLite file: tables, format number, transactions, and SQLite's errors in our words."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from braintorrent.errors import FormatError, StorageBusy, StorageFull

FORMAT = 2
BUSY_SECONDS = 10.0  # another process reads, say for a report
TABLES = """
CREATE TABLE life (incarnation INTEGER PRIMARY KEY, unix REAL NOT NULL);
CREATE TABLE announcement (  -- own ones, and those whose bytes were here; held: they still are
    author TEXT, incarnation INTEGER, counter INTEGER, content TEXT NOT NULL, record TEXT NOT NULL,
    raw BLOB NOT NULL, own INTEGER NOT NULL, held INTEGER NOT NULL, unix REAL NOT NULL,
    PRIMARY KEY (author, incarnation, counter));
CREATE TABLE refusal (
    author TEXT, incarnation INTEGER, counter INTEGER, reason TEXT NOT NULL, unix REAL NOT NULL,
    PRIMARY KEY (author, incarnation, counter));
CREATE TABLE equivocation (  -- two signed statements for one version: the proof
    author TEXT, incarnation INTEGER, counter INTEGER, first BLOB NOT NULL, second BLOB NOT NULL,
    unix REAL NOT NULL, lifted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE merge (  -- incarnation, counter: the own version it led to; null for a last merge
    id INTEGER PRIMARY KEY, unix REAL NOT NULL, incarnation INTEGER, counter INTEGER,
    below_quorum INTEGER NOT NULL, adopt INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE part (  -- skipped ones have a reason
    merge INTEGER NOT NULL REFERENCES merge, author TEXT NOT NULL, incarnation INTEGER NOT NULL,
    counter INTEGER NOT NULL, content TEXT NOT NULL, samples INTEGER NOT NULL, weight REAL NOT NULL,
    norm REAL NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (merge, author));
CREATE INDEX part_author ON part (author, incarnation, counter);
CREATE TABLE metric (
    id INTEGER PRIMARY KEY, unix REAL NOT NULL, incarnation INTEGER NOT NULL, counter INTEGER NOT NULL,
    stage TEXT NOT NULL, name TEXT NOT NULL, value REAL);
CREATE TABLE traffic (peer TEXT PRIMARY KEY, received INTEGER NOT NULL, sent INTEGER NOT NULL);
"""
SINCE_2 = """
CREATE TABLE entry (  -- the chain: what the other tables tell, signed
    sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, raw BLOB NOT NULL);
CREATE TABLE notice (digest TEXT PRIMARY KEY, raw BLOB NOT NULL, state TEXT NOT NULL, unix REAL NOT NULL);
"""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)  # the low byte of these codes
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


Write = Callable[[sqlite3.Connection], Any]


class Database:
    """One connection, any thread, one at a time. FormatError if the file is damaged or of another release.

    migrate: what else to do in the transaction that brings an older release's file to FORMAT; None to read only.
    at_rest: read a file that nobody writes to, without the files that SQLite makes beside it for whoever reads.
    """

    def __init__(self, path: Path, migrate: Write | None, *, at_rest: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._notes: list[Write] = []
        self.format = FORMAT
        mode = "rwc" if migrate is not None else "ro&immutable=1" if at_rest else "ro"
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        try:
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare(migrate)
        except sqlite3.OperationalError as error:
            raise _translated(path, error) from None
        except sqlite3.DatabaseError as error:
            raise FormatError(f"{path}: damaged ({error}); restore it from a copy, or move the folder away") from None

    def _prepare(self, migrate: Write | None) -> None:
        execute = self._connection.execute
        if migrate is not None:
            execute("PRAGMA journal_mode = WAL")
            execute("PRAGMA synchronous = FULL")  # in WAL mode: a commit is on the disk when it returns
            execute("PRAGMA foreign_keys = ON")
            execute("PRAGMA fullfsync = ON")  # macOS
            execute("PRAGMA cache_spill = OFF")  # the log is only ever appended to (wal.py)
        self.format = self._found()
        if migrate is not None and self.format in (0, 1):
            with self.transaction():
                self._migrate(migrate)
        if self.format == 0:
            raise FormatError(f"{self.path}: damaged, or no ledger")
        if self.format not in (1, FORMAT):
            raise FormatError(f"{self.path}: ledger format {self.format}; this release of braintorrent reads {FORMAT}")

    def _found(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self, migrate: Write) -> None:
        execute, self.format = self._connection.execute, self._found()  # another process may have been faster
        if self.format == FORMAT:
            return
        for statement in f"{'' if self.format else TABLES}{SINCE_2}".split(";\n"):
            execute(statement)
        if self.format:
            migrate(self._connection)
        execute(f"PRAGMA user_version = {FORMAT}")
        self.format = FORMAT

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Queries inside see one state of the file, whatever others write meanwhile."""
        with self._lock:
            self.flush()
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, with what was noted before it; durable on leaving. StorageFull, StorageBusy."""
        with self._lock:
            notes = list(self._notes)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    for note in notes:
                        note(self._connection)
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise _translated(self.path, error) from None
            del self._notes[: len(notes)]

    def note(self, statement: str, *values: Any) -> None:
        """Run a statement with the next transaction; never waits for the disk."""
        self.note_work(lambda sql: sql.execute(statement, values))

    def note_work(self, work: Write) -> None:
        """The same of what takes more than a statement."""
        self._notes.append(work)

    def flush(self) -> None:
        """Write what was noted, if anything was; durable on return."""
        if self._notes and not self._connection.in_transaction:
            with self.transaction():
                pass

    def rows(self, query: str, *values: Any) -> list[Any]:
        """The answer to a query, what was noted before included, unless the disk is full. StorageBusy."""
        with self._lock:
            with contextlib.suppress(StorageFull):
                self.flush()
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                raise _translated(self.path, error) from None

    def close(self) -> None:
        """Flush, unless the disk is full, and close. Idempotent."""
        with self._lock, contextlib.closing(self._connection), contextlib.suppress(StorageFull):
            self.flush()


def _translated(path: Path, error: sqlite3.OperationalError) -> Exception:
    if error.sqlite_errorcode in _FULL:
        return StorageFull(f"{path}: {error}; make room on this disk, then it goes on")
    if error.sqlite_errorcode & 0xFF in _BUSY:
        return StorageBusy(f"{path}: another process holds it ({error}); it goes on when that lets go")
    return error
