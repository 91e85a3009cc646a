"""One other peer as this one calls it: its certificate, its connections, and our introduction to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import aiohttp

from braintorrent.errors import BadMessage, Unreachable
from braintorrent.network import limits
from braintorrent.network.address import Address, parse_address
from braintorrent.network.body import Download, Sink, Unanswered, dial, pour
from braintorrent.network.dialling import Dialling
from braintorrent.network.tls import certificate, certified, client_context, shown_certificate, to_der
from braintorrent.network.wire import fault, line
from braintorrent.records import Identity, short


@dataclass(frozen=True, slots=True)
class Parts:
    """A body of `size` bytes in parts. begin: makes them anew, should the request be repeated."""

    size: int
    begin: Callable[[], AsyncIterator[bytes]]


class Remote:
    """`peer`, whose certificate is `der`: every connection trusts that certificate only.

    rotation: how this lab came to its key (encode_chain), shown with its certificate; empty without any.
    """

    def __init__(self, identity: Identity, der: bytes, dialling: Dialling, rotation: bytes = b"") -> None:
        self.introductions = 0
        self._card = to_der(certificate(identity)) + rotation
        self._dialling = dialling
        self._certificate = der
        self._context = client_context(identity, der)
        self._session = pinned_session(der, self._context, dialling)
        self._downloads: set[Download] = set()
        self._introducing = asyncio.Lock()

    async def close(self) -> None:
        """Drop its connections, downloads included."""
        for download in self._downloads:
            download.stop()
        await self._session.close()

    async def request(self, address: str, method: str, path: str, body: bytes | Parts | None) -> aiohttp.ClientResponse:
        """The answer's head, after an introduction if it takes one. Raises what aiohttp raises, and `check`."""
        url, introductions = f"https://{dialable(address)}", self.introductions
        try:
            return await self._request(method, url + path, body)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
            raise
        except aiohttp.ClientConnectionError:
            await self._introduce(url, introductions)
        return await self._request(method, url + path, body)

    async def _request(self, method: str, url: str, body: bytes | Parts | None) -> aiohttp.ClientResponse:
        if not isinstance(body, Parts):
            return await self._session.request(method, url, data=body, allow_redirects=False)
        size = {"Content-Length": str(body.size)}
        return await self._session.request(method, url, data=body.begin(), headers=size, allow_redirects=False)

    async def download(
        self, address: str, path: str, start: int, end: int, sink: Sink, threads: Executor, count: Callable[[int], None]
    ) -> None:
        """Bytes `start` to `end`, the last, of what is at `path`, after an introduction if it takes one."""
        introductions = self.introductions
        try:
            await self._pour(address, path, start, end, sink, threads, count)
        except Unanswered:
            await self._introduce(f"https://{dialable(address)}", introductions)
            await self._pour(address, path, start, end, sink, threads, count)

    async def _pour(
        self, address: str, path: str, start: int, end: int, sink: Sink, threads: Executor, count: Callable[[int], None]
    ) -> None:
        download = Download(
            await dial(dialable(address), self._dialling), self._context, self._certificate, path, start, end
        )
        self._downloads.add(download)
        try:
            await pour(download, sink, threads, count)
        finally:
            self._downloads.discard(download)

    async def _introduce(self, url: str, introductions: int) -> None:
        async with self._introducing:
            if self.introductions != introductions:
                return  # another task has just done it
            async with (
                pinned_session(self._certificate, client_context(None, self._certificate), self._dialling) as session,
                session.post(f"{url}/v1/hello", data=self._card, allow_redirects=False) as response,
            ):
                await check(response, 200)
            self.introductions += 1


class _Pinned(aiohttp.TCPConnector):
    """Connections that are used only if the other side showed exactly the certificate expected."""

    def __init__(self, pin: bytes, context: ssl.SSLContext, dialling: Dialling) -> None:
        super().__init__(
            ssl=context, limit=0, use_dns_cache=False, keepalive_timeout=limits.IDLE_SECONDS / 2,
            socket_factory=dialling.open,
        )  # fmt: skip
        self._pin = pin

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        transport, shown = connection.transport, None
        with contextlib.suppress(ConnectionError):
            shown = shown_certificate(transport.get_extra_info("ssl_object")) if transport is not None else None
        if shown != self._pin:
            connection.close()
            raise aiohttp.ClientConnectionError("another certificate than the one expected")
        return connection


def pinned_session(pin: bytes, context: ssl.SSLContext, dialling: Dialling | None = None) -> aiohttp.ClientSession:
    """A session whose connections all end at the holder of the certificate `pin` (DER)."""
    return aiohttp.ClientSession(
        connector=_Pinned(pin, context, dialling or Dialling()), cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False, trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=limits.HANDSHAKE_SECONDS, sock_read=limits.STALL_SECONDS
        ),
        max_line_size=limits.LINE_BYTES, max_field_size=limits.LINE_BYTES, max_headers=limits.HEADERS,
        skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
    )  # fmt: skip


async def look(address: str, dialling: Dialling | None = None) -> tuple[str, bytes]:
    """Peer id and certificate (DER) of whoever answers at `address`; nothing is sent to it but the handshake."""
    try:
        async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
            plain = await dial(dialable(address), dialling or Dialling())
            _, writer = await asyncio.open_connection(sock=plain, ssl=client_context(None, None), server_hostname="")
        try:
            der = shown_certificate(writer.get_extra_info("ssl_object")) or b""
        finally:
            writer.transport.abort()
    except (OSError, UnicodeError) as error:  # a name that cannot be a host name is no address
        raise Unreachable(f"{address}: {line(error)}") from None
    return certified(der), der


def dialable(address: str) -> Address:
    """`address` parsed, or Unreachable."""
    try:
        return parse_address(address)
    except ValueError as error:
        raise Unreachable(str(error), reason="address") from None


async def read(content: aiohttp.StreamReader, cap: int) -> bytes:
    """A whole body of at most `cap` bytes; BadMessage if there is more."""
    data = bytearray()
    while chunk := await content.readany():
        data += chunk
        if len(data) > cap:
            raise BadMessage(f"an answer of more than {cap} bytes", reason="too-large")
    return bytes(data)


async def check(response: aiohttp.ClientResponse, expected: int) -> None:
    """Return for the status asked for; otherwise raise what the other side says is wrong."""
    if response.status != expected:
        try:
            body = await read(response.content, limits.ERROR_BYTES)
        except BadMessage:
            body = b""
        raise fault(response.status, body)


def stranger(peer: str, address: str) -> Unreachable:
    """Somebody answers at a member's address, but not that member."""
    return Unreachable(f"another peer than {short(peer)} answers at {address}", reason="identity")
