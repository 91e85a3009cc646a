"""A large response body straight from TLS into a few reused blocks, and from there into a sink in a thread.

aiohttp reads the answer's head; then its protocol is replaced on the transport (asyncio's set_protocol)
by a BufferedProtocol, into whose blocks TLS decrypts. aiohttp would copy each byte three times on the way,
which measured took twice the processor time and halved the throughput. The connection ends with the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol, cast

import aiohttp

from braintorrent.network import limits


class Sink(Protocol):
    """Where fetched bytes go, in order. Called from a worker thread, never twice at once."""

    def write(self, data: memoryview) -> object:
        """Take the next bytes, which are overwritten later; what it raises ends the fetch and reaches its caller."""


async def pour(
    response: aiohttp.ClientResponse, size: int, sink: Sink, threads: Executor, count: Callable[[int], None]
) -> None:
    """All `size` bytes of the body into `sink`, telling `count` as they come.

    ClientError if they end early, TimeoutError if a block takes longer than BLOCK / BYTES_PER_SECOND.
    """
    loop = asyncio.get_running_loop()
    blocks = _Blocks(response, size)

    def write(full: Sequence[memoryview]) -> None:
        for block in full:
            sink.write(block)
            if len(block) == limits.BLOCK:  # only the last is shorter, and there is no use for it
                loop.call_soon_threadsafe(blocks.put_back, block)

    try:
        while full := await blocks.get():
            count(sum(map(len, full)))
            writing = loop.run_in_executor(threads, write, full)
            try:
                await asyncio.wait([writing])
            except asyncio.CancelledError:
                await asyncio.wait([writing])  # the sink is the caller's again only when no thread is in it
                raise
            writing.result()
    finally:
        blocks.close()


class _Blocks(asyncio.BufferedProtocol):
    """Takes over the transport of a response and fills blocks; reading pauses while none is free."""

    def __init__(self, response: aiohttp.ClientResponse, size: int) -> None:
        self._left = size  # bytes still to come
        self._free = [memoryview(bytearray(limits.BLOCK)) for _ in range(limits.BLOCKS)]
        self._full: list[memoryview] = []
        self._news = asyncio.Event()
        self._lost: BaseException | None = None
        self._closed = False
        self._filling, self._at = self._free.pop()[:size], 0
        self._response = response
        head = memoryview(response.content.read_nowait())
        self._transport = response.connection.transport if response.connection is not None else None
        if self._transport is not None:  # else the head is all, and aiohttp has let go of the connection
            self._former = self._transport.get_protocol()
            self._transport.set_protocol(self)
            self._transport.resume_reading()
        while head:
            room = self.get_buffer(-1)[: len(head)]
            room[:] = head[: len(room)]
            head = head[len(room) :]
            self.buffer_updated(len(room))
        if self._transport is None and self._left:
            self.connection_lost(None)

    async def get(self) -> list[memoryview]:
        """All full blocks, so that the writer need not come back for each; the body's last is shorter, then none."""
        while not self._full:
            if not self._left:
                return []
            if self._lost is not None:
                raise self._lost
            self._news.clear()
            async with asyncio.timeout(limits.BLOCK / limits.BYTES_PER_SECOND):
                await self._news.wait()
        full, self._full = self._full, []
        return full

    def put_back(self, block: memoryview) -> None:
        """This block may be overwritten."""
        self._free.append(block)
        if not self._filling and self._left and not self._closed:
            self._fill_next()
            if self._transport is not None:
                self._transport.resume_reading()

    def close(self) -> None:
        """End the connection: nobody reads the rest of it."""
        self._closed = True
        if self._transport is not None:
            self._transport.set_protocol(self._former)
        self._response.close()

    def _fill_next(self) -> None:
        self._filling, self._at = self._free.pop()[: self._left] if self._free else memoryview(b""), 0

    # asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:  # type: ignore[override]
        """Where the next bytes go."""
        return self._filling[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        """That many bytes came."""
        self._at += nbytes
        self._left -= nbytes
        if self._at == len(self._filling):
            self._full.append(self._filling)
            self._fill_next()
            if not self._filling and self._transport is not None:
                self._transport.pause_reading()
            self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side hung up; aiohttp hears of it too, since it waits for its connections' ends."""
        self._lost = exc if isinstance(exc, aiohttp.ClientError) else aiohttp.ClientPayloadError("the body ends early")
        self._news.set()
        if self._transport is not None:
            cast("asyncio.Protocol", self._former).connection_lost(exc)
