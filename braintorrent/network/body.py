"""A large blob over a connection of its own, in a thread of its own: from TLS into one block, from there into a sink.

The thread decrypts, hashes and writes one block after the other while it is in the processor's cache, and
the loop goes on answering asks. asyncio's transport would decrypt on the loop, and hand each block to a
second thread: measured, a third more processor time for the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar, cast

from braintorrent.errors import BadMessage, Unreachable
from braintorrent.network import limits
from braintorrent.network.address import Address
from braintorrent.network.dialling import Dialling
from braintorrent.network.wire import fault, line

T = TypeVar("T")
TOLD_EVERY = 0.2  # seconds: a thread that told of every block would stop for the loop each time


class Sink(Protocol):
    """Where fetched bytes go, in order. Called from a worker thread, never twice at once."""

    def write(self, data: memoryview) -> object:
        """Take the next bytes, which are overwritten later; what it raises ends the fetch and reaches its caller."""


class Unanswered(Exception):
    """The connection broke before the answer's head: the other side may not know our certificate."""


async def dial(address: Address, dialling: Dialling) -> socket.socket:
    """A plain connection; Unreachable or TimeoutError if nobody is there, or nobody may be looked for."""
    loop, trouble = asyncio.get_running_loop(), "no such host"
    async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
        try:
            found = await loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(f"{address}: {line(error)}") from None
        for one in found:
            try:
                plain = dialling.open(one)
            except OSError as error:
                trouble = line(error)
                continue
            plain.setblocking(False)
            try:
                await loop.sock_connect(plain, one[-1])
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the request waits for an ACK
                return plain
            except OSError as error:
                plain.close()
                trouble = line(error)
            except BaseException:
                plain.close()
                raise
    raise Unreachable(f"{address}: {trouble}")


async def pour(download: Download, sink: Sink, threads: Executor, count: Callable[[int], None]) -> None:
    """The body of `download` into `sink`, telling `count` now and then how many bytes came.

    Unanswered, or ConnectionError once it had an answer; TimeoutError
    if a block takes longer than BLOCK / BYTES_PER_SECOND.
    """
    loop, patience = asyncio.get_running_loop(), limits.BLOCK / limits.BYTES_PER_SECOND
    running = loop.run_in_executor(threads, download.run, sink)
    counted, moved = 0, loop.time()
    try:
        while not running.done():
            await asyncio.wait([running], timeout=min(TOLD_EVERY, patience))
            if (came := download.received - counted) > 0:
                count(came)
                counted, moved = counted + came, loop.time()
            elif loop.time() > moved + patience:
                raise TimeoutError
    finally:
        download.stop()
        await asyncio.wait([running])  # the sink is the caller's again only when no thread is in it
        count(download.received - counted)
    running.result()


class Download:
    """One GET of `path` over `connection`, by TLS as `context` has it, if the certificate shown is exactly `pin`.

    start, end: the bytes wanted of a blob that has `end` of them. received: bytes so far.
    """

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, pin: bytes, path: str, start: int, end: int
    ) -> None:
        self.received = 0
        self._connection, self._context, self._pin, self._path = connection, context, pin, path
        self._start, self._end = start, end
        self._stopped = False

    def stop(self) -> None:
        """End `run` soon, from any thread. Idempotent."""
        self._stopped = True
        with contextlib.suppress(OSError):  # it has ended already
            self._connection.shutdown(socket.SHUT_RDWR)

    def run(self, sink: Sink) -> None:
        """Ask, and pour the answer into `sink`, in this thread. Closes the connection."""
        with self._connection:
            response = self._ask()
            try:
                self._check(response)
                self._pour(response, sink)
            finally:
                response.close()

    def _ask(self) -> http.client.HTTPResponse:
        try:
            self._connection.settimeout(limits.HANDSHAKE_SECONDS)
            tls = _Tls(self._connection, self._context)
            if tls.certificate != self._pin:
                raise Unreachable("another certificate than the one expected", reason="identity")
            self._connection.settimeout(limits.STALL_SECONDS)
            request = http.client.HTTPConnection("peer")
            request.sock = tls
            request.putrequest("GET", self._path, skip_accept_encoding=True)
            if self._start:
                request.putheader("Range", f"bytes={self._start}-")
            request.endheaders()
            response = request.getresponse()
            tls.left = None
            return response
        except (TimeoutError, ssl.SSLCertVerificationError):
            raise
        except (http.client.RemoteDisconnected, OSError) as error:
            raise Unanswered(line(error)) from None

    def _check(self, response: http.client.HTTPResponse) -> None:
        expected = 206 if self._start else 200
        if response.status != expected:
            raise fault(response.status, response.read(limits.ERROR_BYTES + 1))
        part = f"bytes {self._start}-{self._end - 1}/{self._end}" if self._start else None
        size = None if response.chunked else response.length
        if size != self._end - self._start or response.headers.get("Content-Range") != part:
            raise BadMessage("another size than agreed was offered", reason="size")

    def _pour(self, response: http.client.HTTPResponse, sink: Sink) -> None:
        size = self._end - self._start
        block = memoryview(bytearray(min(limits.BLOCK, size)))
        while self.received < size:
            view = block[: size - self.received]
            try:
                got = response.readinto(view)
            except TimeoutError:
                raise
            except OSError as error:
                raise ConnectionError(line(error)) from None
            if got < len(view) or self._stopped:
                raise ConnectionError("the body ends early")
            self.received += got
            sink.write(view)


class _Tls(io.RawIOBase):
    """TLS over a blocking socket, in the part of a socket that http.client uses.

    It receives a BLOCK at a time. SSLSocket makes two system calls for each record of 16 KiB instead, which
    on loopback cost as much as the decryption.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._socket, self._buffer = connection, memoryview(bytearray(limits.BLOCK))
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)
        self.left: int | None = limits.HEAD_BYTES  # that an answer may yet take before its body; None in the body
        self._do(self._tls.do_handshake)
        self.certificate = self._tls.getpeercert(binary_form=True)

    def readable(self) -> bool:
        return True

    def readinto(self, view: memoryview) -> int:  # type: ignore[override]
        if self.left is not None:
            if not self.left:
                raise http.client.HTTPException(f"an answer's head of more than {limits.HEAD_BYTES} bytes")
            view = view[: self.left]
            self.left -= (got := self._read(view))
            return got
        return self._read(view)

    def _read(self, view: memoryview) -> int:
        return cast("int", self._do(lambda: self._tls.read(len(view), view)))  # its annotation forgets the buffer

    def sendall(self, data: bytes) -> None:
        self._do(lambda: self._tls.write(data))

    def close(self) -> None:
        """Nothing: http.client closes it more than once, and the socket is Download's to close."""

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def _do(self, step: Callable[[], T]) -> T:
        while True:
            try:
                done = step()
                self._send()
                return done
            except ssl.SSLWantReadError:
                self._send()
            if got := self._socket.recv_into(self._buffer):
                self._in.write(self._buffer[:got])
            else:
                self._in.write_eof()

    def _send(self) -> None:
        if self._out.pending:
            self._socket.sendall(self._out.read())
