"""Blobs that others send here because they cannot be dialled: taken once each, from the one peer asked for it.

    inbox.expect(peer, blobs)                before the answer that says so leaves
    await inbox.take(peer, blob, size, ...)  where it goes, once its size is known; waits for it
    inbox.close(peer, blobs)                 it is waited for no longer

A PUT that comes before `take` waits for it a while: whoever asked is still reading the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from aiohttp import web

from braintorrent.errors import BadMessage, Refused, Unreachable
from braintorrent.network import limits
from braintorrent.network.body import Sink
from braintorrent.records import digest, short


@dataclass(slots=True, eq=False)
class Parcel:
    """A blob to come: its size in bytes, the sink that verifies it, and what became of it."""

    size: int
    sink: Sink
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    writing: asyncio.Future[object] | None = None  # the last block given to the sink

    def end(self, error: BaseException | None) -> None:
        """It is all in the sink, or will not be."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # whoever waited may have been cancelled


class Inbox:
    """What peers were asked to send and have not begun to."""

    def __init__(self) -> None:
        self._expected: dict[tuple[str, str], asyncio.Future[Parcel | None]] = {}

    def expect(self, peer: str, blobs: Iterable[str]) -> None:
        """From now on `peer` may send these blobs (digests), each once."""
        loop = asyncio.get_running_loop()
        self._expected.update({(peer, blob): loop.create_future() for blob in blobs})

    def close(self, peer: str, blobs: Iterable[str]) -> None:
        """What of these has not begun is declined from now on."""
        for blob in blobs:
            expected = self._expected.pop((peer, blob), None)
            if expected is not None and not expected.done():
                expected.set_result(None)

    async def take(self, peer: str, blob: str, size: int, sink: Sink, seconds: float) -> None:
        """Have `size` bytes of an expected blob put into `sink`. What the sink raises, or a RemoteError.

        Unreachable if `peer` has not begun to send it within `seconds`.
        """
        parcel = Parcel(size, sink)
        self._expected[peer, blob].set_result(parcel)
        try:
            async with asyncio.timeout(seconds):
                await parcel.begun.wait()
        except TimeoutError:
            raise Unreachable(f"{short(peer)} did not send blob {blob[:16]} within {seconds:g} s") from None
        finally:
            self._expected.pop((peer, blob), None)
        try:
            await parcel.done  # cancelled with its waiter, so that no block is begun afterwards
        finally:
            if parcel.writing is not None:
                await asyncio.wait([parcel.writing])  # the sink is its owner's again only when no thread is in it

    async def take_small(self, peer: str, blob: str, size: int, seconds: float) -> bytes:
        """An expected blob of exactly `size` bytes whole, its digest checked."""
        sink = _Whole(peer, blob, size)
        await self.take(peer, blob, size, sink, seconds)
        return bytes(sink.data)

    async def parcel(self, peer: str, blob: str) -> Parcel:
        """What `peer`, which begins to send it, was asked for; Refused if it was not, or has begun already."""
        expected = self._expected.get((peer, blob))
        if expected is not None:
            await asyncio.wait([expected], timeout=limits.BODY_SECONDS)
            parcel = expected.result() if expected.done() else None
            if parcel is not None and self._expected.pop((peer, blob), None) is expected:
                parcel.begun.set()
                return parcel
        raise Refused(f"blob {blob[:16]} was not asked for, or is not waited for any more", reason="unwanted")


class _Whole:
    """A sink for a small blob: keeps it, and looks at its digest once it is whole."""

    def __init__(self, peer: str, blob: str, size: int) -> None:
        self.data = bytearray()
        self._peer, self._blob, self._size = peer, blob, size

    def write(self, data: memoryview) -> None:
        self.data += data
        if len(self.data) == self._size and digest(bytes(self.data)) != self._blob:
            raise BadMessage(f"{short(self._peer)} sent other bytes than blob {self._blob[:16]}", reason="digest")


async def receive(
    request: web.BaseRequest, parcel: Parcel, threads: Executor, trusted: Callable[[], bool],
    received: Callable[[int], object],
) -> None:  # fmt: skip
    """The body of a request into the parcel's sink, a block at a time; the parcel is ended in any case.

    received: told of the bytes as they come. BadMessage if the size is another; Unreachable if it stalls.
    """
    error: BaseException | None = Unreachable("the sender broke off")
    try:
        if request.content_length != parcel.size:
            raise BadMessage(f"{request.content_length} bytes where {parcel.size} were due", reason="size")
        await _pour(request, parcel, threads, trusted, received)
        error = None
    except ConnectionError:
        raise
    except Exception as trouble:
        error = trouble
        raise
    finally:
        parcel.end(error)


async def _pour(
    request: web.BaseRequest, parcel: Parcel, threads: Executor, trusted: Callable[[], bool],
    received: Callable[[int], object],
) -> None:  # fmt: skip
    left = parcel.size
    while left:
        block = bytearray()
        try:
            async with asyncio.timeout(limits.BLOCK / limits.BYTES_PER_SECOND):
                while len(block) < min(limits.BLOCK, left):
                    piece = await request.content.read(min(limits.BLOCK, left) - len(block))
                    if not piece:
                        raise ConnectionError("the body ends early")
                    block += piece
                    received(len(piece))
        except TimeoutError:
            raise Unreachable(f"a block took more than {limits.BLOCK / limits.BYTES_PER_SECOND:g} s") from None
        if not trusted():
            raise Refused("the sender left the roster", reason="roster")
        if parcel.done.done():
            raise Refused("it is not waited for any more", reason="unwanted")
        left -= len(block)
        parcel.writing = asyncio.get_running_loop().run_in_executor(threads, parcel.sink.write, memoryview(block))
        await asyncio.wait([parcel.writing])
        parcel.writing.result()
