"""SQLite's log beside the ledger, looked at by ourselves: SQLite drops all from the first damaged frame on, silently.

A commit is a frame that says so, with the checksum that goes on from the frame before: where one lies behind a damaged
frame, what it committed is lost. A kill leaves no such: it cuts the last frame short, and later, shorter transactions
leave the rest of what was never committed. Each round of the log has two new numbers, its salts. The format:
https://sqlite.org/fileformat.html#walformat.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import time
from pathlib import Path
from typing import BinaryIO

from braintorrent.errors import Broken

HEADER_BYTES, FRAME_BYTES = 32, 24  # of the log; of a frame, before its page
MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the byte order in which checksums read the rest
LOOKS, LOOK_AGAIN = 3, 0.2  # beside a writer, a frame is seen half written, or a new round begun; seconds between


def log_of(path: Path) -> Path:
    """Where SQLite keeps the log of the file at `path`."""
    return path.with_name(f"{path.name}-wal")


def pending(path: Path) -> bool:
    """Whether the log holds what may not be in the file yet."""
    log = log_of(path)
    return log.exists() and log.stat().st_size > 0


def fold(path: Path) -> None:
    """Put all of the log into the file, unless the disk is full or somebody reads. For who writes alone."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def check_log(path: Path) -> str:
    """What the log of the file at `path` holds, in words; Broken if some of it was damaged. Reads all of it."""
    before = None
    for look in range(LOOKS):
        time.sleep(LOOK_AGAIN * bool(look))
        try:
            with log_of(path).open("rb") as file:
                head = file.read(HEADER_BYTES)
                trouble, frames = _walk(file, head)
                file.seek(0)
                same = file.read(HEADER_BYTES) == head
        except FileNotFoundError:
            return "none: all is in the file"
        if same and not trouble:
            return f"{frames} frames, each with its checksum" if frames else "empty"
        if same and (head, trouble) == before:  # damage stays where it is; what a writer is at does not
            name = log_of(path).name
            raise Broken(f"{name}: {trouble}, and SQLite ignores all from there on: damaged after it was written")
        before = head, trouble
    return "written to too fast to be looked at; checked when the process has stopped"


def _walk(file: BinaryIO, head: bytes) -> tuple[str, int]:
    """What is wrong, or nothing, and how many frames SQLite goes by. file: behind its header."""
    size = os.fstat(file.fileno()).st_size
    if size <= HEADER_BYTES or len(head) < HEADER_BYTES:
        return "", 0
    magic, _, page, _, *salts, first, second = struct.unpack(">8I", head)
    order = MAGIC.get(magic)
    if order is None or _sum(order, head[:24], (0, 0)) != (first, second):
        return "its header is not what its checksum says", 0
    before, length, whole = (first, second), FRAME_BYTES + page, 0
    count, rest = divmod(size - HEADER_BYTES, length)
    for number in range(count):
        frame = file.read(length)
        if len(frame) < length:
            break  # a writer began a new log
        _, commit, *salt, first, second = struct.unpack(">6I", frame[:FRAME_BYTES])
        same = [mine == its for mine, its in zip(salt, salts, strict=True)]
        follows = all(same) and _sum(order, frame[FRAME_BYTES:], _sum(order, frame[:8], before)) == (first, second)
        if follows and whole == number:
            whole += 1
        elif any(same) and (not all(same) or (commit and (follows or (number == count - 1 and not rest)))):
            return f"frame {whole + 1} is not what its checksum says", whole
        before = first, second
    return "", whole


def _sum(order: str, data: bytes, total: tuple[int, int]) -> tuple[int, int]:
    """SQLite's checksum over `data`, a multiple of 8 bytes, going on from `total`."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    first, second = total
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second
