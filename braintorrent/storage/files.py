"""Writing so that a crash at any instant leaves the old content or the new, and a full disk is told as such."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from braintorrent.errors import StorageFull
from braintorrent.records.content import CHUNK_BYTES, content_digest

TEMPORARY = ".tmp"  # suffix of files that mean nothing until renamed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def temporary_path(path: Path) -> Path:
    """A fresh name beside `path`, on the same file system, that no other process picks."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")


@contextlib.contextmanager
def telling_full(path: Path) -> Iterator[None]:
    """Turn the system's ways of saying "no room" into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(f"{path}: {os.strerror(error.errno)}; make room on this disk, then it goes on") from None


def write_atomically(path: Path, *parts: bytes | memoryview, mode: int = 0o600) -> None:
    """Replace `path` by `parts` in one step, durable on return. StorageFull leaves the old content."""
    with replacing(path, *parts, mode=mode):
        pass


@contextlib.contextmanager
def replacing(path: Path, *parts: bytes | memoryview, mode: int = 0o600) -> Iterator[None]:
    """The same around what has to come before: inside, there is room for the new, and an error leaves the old."""
    temporary = temporary_path(path)
    with telling_full(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            try:
                offset = 0
                for part in parts:
                    write_at(descriptor, part, offset)
                    offset += len(memoryview(part).cast("B"))
                sync(descriptor)
            finally:
                os.close(descriptor)
            yield
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def link_atomically(source: Path, path: Path) -> None:
    """Make `path` another name of the bytes of `source` in one step, or a copy where there are no such links.

    Not durable until the folder is synced. StorageFull leaves the old content; FileNotFoundError without a source.
    """
    temporary = temporary_path(path)
    with telling_full(path):
        try:
            try:
                os.link(source, temporary)
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, temporary)
                temporary.chmod(0o600)
                with temporary.open("rb") as file:
                    sync(file.fileno())
            os.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)  # rename leaves it where both are names of the same bytes already


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All of `data` at `offset`."""
    view = memoryview(data).cast("B")
    while view:  # Linux takes at most 2 GiB in one call
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def file_digest(path: Path) -> str:
    """Digest of a file as a blob. Read piece by piece: a mapped file would count as memory."""
    chunks: list[str] = []
    piece = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while (count := file.readinto(piece)) or not chunks:
            chunks.append(blake3(piece[:count]).hexdigest())
            if count < CHUNK_BYTES:
                break
    return content_digest(chunks)


def sync(descriptor: int) -> None:
    """What was written is on the disk when this returns, also on macOS, where fsync does not say that."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        fcntl.fcntl(descriptor, full)
    else:
        os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Names made, changed or removed in the folder `path` are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
