"""Blobs by content: each file's name is the digest of its bytes (records/content.py), so what is there is right.

Writing is verified chunk by chunk and durable before the name exists. The store keeps within a bound on
disk: what was superseded goes first, oldest first, then unfinished downloads, then records of old versions, which
only tell where models came from; then there is StorageFull. What was superseded goes as well while the disk itself is
nearly full: what is kept out of courtesy must not be what keeps this lab from writing its ledger.
A blob removed while somebody reads it stays readable through the open descriptor.
Any thread may call; methods that touch many bytes say so.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from braintorrent.errors import StorageBusy, StorageFull
from braintorrent.records import Artifact, digest
from braintorrent.records.canonical import HEX_DIGEST
from braintorrent.records.content import chunk_digests, content_digest
from braintorrent.storage.files import (
    file_digest,
    link_atomically,
    sync,
    sync_folder,
    telling_full,
    temporary_path,
    write_at,
)  # fmt: skip
from braintorrent.storage.incoming import Incoming

PARTIAL = ".part"
ARCHIVED = 16  # records of old versions take at most this part of the bound
RESERVE = 64 << 20  # bytes free on the disk, below which nothing superseded is kept

T = TypeVar("T")


class BlobStore:
    """The blobs in folder `path`, at most `limit_bytes` of them, unfinished ones included."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path, self.limit_bytes = path, limit_bytes
        self.flusher = ThreadPoolExecutor(1, "flush")  # of downloads; its thread begins with the first large one
        self._lock = threading.RLock()
        self._blobs: dict[str, int] = {}  # digest -> size
        self._partials: dict[str, int] = {}  # file name -> bytes it may come to take
        self._writing: set[str] = set()  # file names in use by an Incoming or a put
        self._superseded: dict[str, None] = {}  # in the order in which they may go
        self._archived: dict[str, None] = {}  # likewise
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in sorted(path.iterdir(), key=lambda f: f.stat().st_mtime):
            if HEX_DIGEST.fullmatch(file.name):
                self._blobs[file.name] = file.stat().st_size
            elif file.suffix == PARTIAL and HEX_DIGEST.fullmatch(file.stem):
                self._partials[file.name] = file.stat().st_size
            else:
                file.unlink()

    # ------------------------------------------------------------- reading

    def has(self, digest: str) -> bool:
        """Whether these bytes are held."""
        return digest in self._blobs

    def digests(self) -> set[str]:
        """All that is held."""
        return set(self._blobs)

    def size(self) -> int:
        """Bytes taken, unfinished downloads counted in full."""
        with self._lock:
            return sum(self._blobs.values()) + sum(self._partials.values())

    def open(self, digest: str) -> tuple[int, int]:
        """(descriptor, size) for pread; the caller closes it. KeyError if it is not held."""
        size = self._blobs[digest]
        try:
            return os.open(self.path / digest, os.O_RDONLY), size
        except FileNotFoundError:
            self.remove(digest)
            raise KeyError(digest) from None

    def read(self, digest: str, cap: int) -> bytes:
        """A small blob whole. KeyError if it is not held or its bytes no longer are what its name says."""
        descriptor, size = self.open(digest)
        try:
            if size > cap:
                raise ValueError(f"blob {digest[:16]} has {size} bytes, more than {cap}")
            data = os.pread(descriptor, size, 0)
        finally:
            os.close(descriptor)
        if digest != content_digest(chunk_digests([data])):
            self.remove(digest)
            raise KeyError(digest)
        return data

    def verify(self, digest: str) -> bool:
        """Whether the bytes on disk still are what the name says. Reads them all."""
        try:
            return digest in self._blobs and file_digest(self.path / digest) == digest
        except FileNotFoundError:
            self.remove(digest)
            return False

    def link(self, digest: str, path: Path) -> None:
        """Give the bytes another name, outside the store, so that they outlive it. KeyError if they are not held.

        Nothing is copied where the file system can help it; the name is durable with the next sync of its folder.
        """
        if digest not in self._blobs:
            raise KeyError(digest)
        try:
            link_atomically(self.path / digest, path)
        except FileNotFoundError:
            raise KeyError(digest) from None

    # ------------------------------------------------------------- writing

    def receive(self, artifact: Artifact) -> Incoming:
        """Where fetched bytes of `artifact` go. Continues an unfinished download, reading what is there of it.

        StorageFull if there is no room for it.
        """
        file = self.path / (artifact.digest + PARTIAL)
        with self._lock:
            if file.name in self._writing:  # the same content comes from somewhere else, too
                file = temporary_path(file)
            self._writing.add(file.name)
            try:
                self._make_room(artifact.size - self._partials.get(file.name, 0))
            except StorageFull:
                self._writing.discard(file.name)
                raise
            self._partials[file.name] = artifact.size
        try:
            return Incoming(self, artifact, file)
        except BaseException:
            self.settle(file, None)
            raise

    def put(self, parts: Sequence[bytes | memoryview], kind: str = "weights", codec: str = "safetensors") -> Artifact:
        """Store the concatenation of `parts`, durable on return, and describe it. Reads and writes all of it.

        The parts must not change meanwhile. Storing what is held already changes nothing.
        """
        chunks, size = tuple(chunk_digests(parts)), sum(memoryview(part).nbytes for part in parts)
        artifact = Artifact(kind=kind, codec=codec, size=size, digest=content_digest(chunks), chunks=chunks)
        with self._lock:
            if self.keep(artifact.digest):
                return artifact
            self._make_room(size)
            file = temporary_path(self.path / artifact.digest)
            self._partials[file.name] = size
            self._writing.add(file.name)
        try:
            with telling_full(file):
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                position = 0
                for part in parts:
                    self.write(descriptor, part, position)
                    position += memoryview(part).nbytes
                with telling_full(file):
                    sync(descriptor)
                self.finish(descriptor, file, artifact.digest)
            finally:
                os.close(descriptor)
        finally:
            self.settle(file, None)
        return artifact

    def put_bytes(self, data: bytes) -> str:
        """Store a small blob, durable on return; its digest."""
        name = digest(data)
        return name if self.keep(name) else self.put([data], kind="record", codec="msgpack").digest

    def keep(self, digest: str) -> bool:
        """Whether these bytes are held; if so they are needed again, and no longer superseded or archived."""
        with self._lock:
            self._superseded.pop(digest, None)
            self._archived.pop(digest, None)
            return digest in self._blobs

    def supersede(self, digest: str) -> None:
        """Nobody needs this any more: it may go when room is needed, in the order of these calls."""
        with self._lock:
            if digest in self._blobs:
                self._superseded.setdefault(digest)

    def archive(self, digest: str) -> None:
        """The record of a version that has a successor: it goes when there is nothing else to give up, oldest first."""
        with self._lock:
            self._superseded.pop(digest, None)
            if digest in self._blobs:
                self._archived.setdefault(digest)
            while sum(self._blobs[name] for name in self._archived) > self.limit_bytes // ARCHIVED:
                self.remove(next(iter(self._archived)))

    def remove(self, digest: str) -> None:
        """Forget a blob, or what a download of it left that nobody continues. Whoever has it open can go on."""
        with self._lock:
            file = self.path / (digest + PARTIAL)
            if file.name not in self._writing:
                self.settle(file, None)
            self._superseded.pop(digest, None)
            self._archived.pop(digest, None)
            if self._blobs.pop(digest, None) is not None:
                (self.path / digest).unlink(missing_ok=True)

    # ------------------------------------------------------------- for Incoming

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Write, giving up what is superseded if the disk itself is full before our bound is."""
        while True:
            try:
                with telling_full(self.path):
                    return write_at(descriptor, data, offset)
            except StorageFull:
                if not self._evict():
                    raise

    def finish(self, descriptor: int, file: Path, digest: str) -> None:
        """`file`, whose bytes are on the disk, becomes the blob `digest`, durably."""
        with telling_full(self.path):
            size = os.fstat(descriptor).st_size
            os.rename(file, self.path / digest)
            try:
                sync_folder(self.path)
            except OSError:
                if digest not in self._blobs:
                    (self.path / digest).unlink()
                raise
        with self._lock:
            self._partials.pop(file.name, None)
            self._blobs[digest] = size
            self._superseded.pop(digest, None)

    def settle(self, file: Path, kept: int | None) -> None:
        """Nobody writes `file` any more; it keeps `kept` bytes, or goes. No effect once finished."""
        with self._lock:
            self._writing.discard(file.name)
            if file.name in self._partials:
                if kept and file.suffix == PARTIAL and file.exists():
                    self._partials[file.name] = kept
                else:
                    del self._partials[file.name]
                    file.unlink(missing_ok=True)

    # ------------------------------------------------------------- the bound

    def with_room(self, write: Callable[[], T], need: int = RESERVE, *, records: bool = False) -> T:
        """What `write`, of about `need` bytes to another file, returns; begun anew after StorageFull while that helps.

        Each time what is superseded or unfinished goes, until as much was given up; with `records` those, too.
        """
        while True:
            try:
                return write()
            except StorageBusy:
                raise
            except StorageFull:
                given = 0
                while given < need and (size := self._evict(records=records)):
                    given += size
                if not given:
                    raise

    def _make_room(self, need: int) -> None:
        with self._lock:
            if need > self.limit_bytes:
                raise StorageFull(f"{self.path}: {need} bytes are more than the bound of {self.limit_bytes} (disk_gib)")
            while self.size() + need > self.limit_bytes:
                if not self._evict():
                    raise StorageFull(
                        f"{self.path}: {need} more bytes would exceed the bound of {self.limit_bytes} (disk_gib)"
                    )
            while self._superseded and shutil.disk_usage(self.path).free < need + RESERVE:
                self._evict()

    def _evict(self, *, records: bool = True) -> int:
        """Give up the next; how many bytes it had, 0 if there is nothing."""
        with self._lock:
            for name in self._superseded:
                size = self._blobs[name]
                self.remove(name)
                return size
            for name, size in self._partials.items():
                if name not in self._writing:
                    self.settle(self.path / name, None)
                    return size
            for name in self._archived if records else ():
                size = self._blobs[name]
                self.remove(name)
                return size
            return 0
