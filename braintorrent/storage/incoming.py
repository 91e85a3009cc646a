"""A blob on its way in: every chunk is verified as it completes, and an interrupted download continues."""

from __future__ import annotations

import os
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from braintorrent.errors import BadMessage, StorageFull
from braintorrent.records import Artifact
from braintorrent.records.content import CHUNK_BYTES
from braintorrent.storage.files import sync, telling_full

if TYPE_CHECKING:
    from braintorrent.storage.blobs import BlobStore

FLUSH_BYTES = 4 << 20  # smaller steps cost more calls than they win, larger ones leave more to the last fsync
_fdatasync = getattr(os, "fdatasync", None)  # macOS has none


class Incoming:
    """Where the bytes of one artifact go, in order. Made by BlobStore.receive; ended by `commit` or `abort`.

    Every call touches the disk: use it from a thread, never two at once. `write` hashes and writes in place
    and keeps no copy, so that the caller's reading of the next bytes is what overlaps with it. The disk itself
    is kept busy meanwhile, by a thread that flushes: else `commit` would wait for all bytes.
    offset: bytes verified so far, a multiple of CHUNK_BYTES until the end.
    """

    def __init__(self, store: BlobStore, artifact: Artifact, file: Path) -> None:
        self.artifact, self.offset = artifact, 0
        self._flushed, self._flushing = 0, _done()
        self._store, self._file = store, file
        with telling_full(file):
            self._descriptor: int | None = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.rewind()
            self._verify_kept()
        except BaseException:
            os.close(self._descriptor)
            raise

    def rewind(self) -> int:
        """Forget bytes of an unfinished chunk, so that no source answers for another's; where to continue."""
        self._position = self.offset
        self._chunk = blake3()
        return self.offset

    def write(self, data: memoryview) -> None:
        """Take the next bytes. BadMessage if a chunk is not what the record says, or there are too many bytes.

        After an error the bytes verified before stay, if the disk did not lose any: continue at `offset`, or `abort`.
        """
        descriptor, artifact = self._open(), self.artifact
        view = memoryview(data).cast("B")
        try:
            if self._position + len(view) > artifact.size:
                raise BadMessage(f"more bytes than blob {artifact.digest[:16]} has", reason="too-large")
            while view:
                piece, view = self._next(view)
                self._store.write(descriptor, piece, self._position)
                self._take(piece)
                self._flush(descriptor)
        except BaseException:
            self.rewind()
            raise

    def commit(self) -> None:
        """Make it a blob, durable on return: every chunk is right by now. BadMessage if it is not complete.

        What cannot be made durable is aborted: its bytes would take their room from others.
        """
        descriptor, artifact = self._open(), self.artifact
        if self.offset != artifact.size:
            raise BadMessage(f"blob {artifact.digest[:16]} ends early, at byte {self.offset}", reason="too-short")
        try:
            self._landed(last=True)
            self._store.finish(descriptor, self._file, artifact.digest)
        except BaseException:
            self.abort()
            raise
        self._close(None)

    def abort(self, keep: bool = True) -> None:
        """Stop; `keep` the verified bytes for another time. Idempotent, and without effect after `commit`."""
        if self._descriptor is not None:
            if keep:
                with suppress(OSError, StorageFull):
                    self._landed()
                os.ftruncate(self._descriptor, self.offset)
            self._close(self.offset if keep else None)

    def _next(self, view: memoryview) -> tuple[memoryview, memoryview]:
        room = self.offset + CHUNK_BYTES - self._position
        return view[:room], view[room:]

    def _take(self, piece: memoryview) -> None:
        self._chunk.update(piece)
        self._position += len(piece)
        if self._position not in (self.offset + CHUNK_BYTES, self.artifact.size):
            return
        number = self.offset // CHUNK_BYTES
        if self._chunk.hexdigest() != self.artifact.chunks[number]:
            raise BadMessage(f"chunk {number} of blob {self.artifact.digest[:16]} is damaged", reason="bad-bytes")
        self.offset = self._position
        self.rewind()

    def _flush(self, descriptor: int) -> None:
        if _fdatasync is None or self._position < self._flushed + FLUSH_BYTES or not self._flushing.done():
            return
        self._landed()
        self._flushed = self._position
        self._flushing = self._store.flusher.submit(_fdatasync, descriptor)

    def _landed(self, *, last: bool = False) -> None:
        """The flush under way is done, and a last one. Only one flush is told of a loss: bytes are not trusted then."""
        try:
            with telling_full(self._file):
                self._flushing.result()
                if last:
                    sync(self._open())
        except (OSError, StorageFull):
            self._flushed, self._flushing, self.offset = 0, _done(), 0
            self.rewind()
            raise

    def _verify_kept(self) -> None:
        """Take what an earlier download left, as far as it is right."""
        descriptor, buffer = self._open(), memoryview(bytearray(CHUNK_BYTES))
        while (count := os.preadv(descriptor, [buffer], self.offset)) and self.offset < self.artifact.size:
            try:
                self._take(buffer[:count])
            except BadMessage:
                break
            if self._position != self.offset:  # the last, unfinished chunk
                break
        self.rewind()

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("this download has ended")
        return self._descriptor

    def _close(self, kept: int | None) -> None:
        if self._descriptor is not None:
            wait([self._flushing])  # its number may be another file's as soon as it is closed
            os.close(self._descriptor)
            self._descriptor = None
            self._store.settle(self._file, kept)


def _done() -> Future[None]:
    future = Future[None]()
    future.set_result(None)
    return future
