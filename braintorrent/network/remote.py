"""One other peer as this one calls it: its certificate, its connections, and our introduction to it."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp

from braintorrent.errors import BadMessage, Gone, Refused, RemoteError, Unreachable
from braintorrent.network import limits
from braintorrent.network.address import Address, parse_address
from braintorrent.network.tls import certificate, certified, client_context, shown_certificate, to_der
from braintorrent.network.wire import clean, decode_error
from braintorrent.records import Identity, short


class Remote:
    """`peer`, whose certificate is `der`: every connection trusts that certificate only."""

    def __init__(self, identity: Identity, der: bytes) -> None:
        self.introductions = 0
        self._identity = identity
        self._certificate = der
        self._session = _session(der, client_context(identity, der))
        self._introducing = asyncio.Lock()

    async def close(self) -> None:
        """Drop its connections."""
        await self._session.close()

    async def request(
        self, address: str, method: str, path: str, body: bytes | None, headers: dict[str, str] | None
    ) -> aiohttp.ClientResponse:
        """The answer's head, after an introduction if it takes one. Raises what aiohttp raises, and `check`."""
        url, introductions = f"https://{dialable(address)}", self.introductions
        try:
            return await self._session.request(method, url + path, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
            raise
        except aiohttp.ClientConnectionError:
            await self._introduce(url, introductions)
        return await self._session.request(method, url + path, data=body, headers=headers, allow_redirects=False)

    async def _introduce(self, url: str, introductions: int) -> None:
        async with self._introducing:
            if self.introductions != introductions:
                return  # another task has just done it
            body = to_der(certificate(self._identity))
            async with (
                _session(self._certificate, client_context(None, self._certificate)) as session,
                session.post(f"{url}/v1/hello", data=body, allow_redirects=False) as response,
            ):
                await check(response, 200)
            self.introductions += 1


class _Pinned(aiohttp.TCPConnector):
    """Connections that are used only if the other side showed exactly the certificate expected."""

    def __init__(self, pin: bytes, context: ssl.SSLContext) -> None:
        super().__init__(ssl=context, limit=0, use_dns_cache=False, keepalive_timeout=limits.IDLE_SECONDS / 2)
        self._pin = pin

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        transport = connection.transport
        if transport is None or shown_certificate(transport.get_extra_info("ssl_object")) != self._pin:
            connection.close()
            raise aiohttp.ClientConnectionError("another certificate than the one expected")
        return connection


def _session(pin: bytes, context: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Pinned(pin, context), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=limits.HANDSHAKE_SECONDS, sock_read=limits.STALL_SECONDS
        ),
        max_line_size=limits.LINE_BYTES, max_field_size=limits.LINE_BYTES,
        skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
    )  # fmt: skip


async def look(address: str) -> tuple[str, bytes]:
    """Peer id and certificate (DER) of whoever answers at `address`; nothing is sent to it but the handshake."""
    host, port = dialable(address)
    try:
        async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=client_context(None, None), server_hostname="")
    except (OSError, UnicodeError) as error:  # a name that cannot be a host name is no address
        raise Unreachable(f"{address}: {line(error)}") from None
    der = shown_certificate(writer.get_extra_info("ssl_object"))
    writer.transport.abort()
    return certified(der or b""), der or b""


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
    if response.status == expected:
        return
    if response.status < 400:
        raise BadMessage(f"status {response.status} where an answer was due", reason="status")
    try:
        reason, detail = decode_error(await read(response.content, limits.ERROR_BYTES))
    except BadMessage:
        reason, detail = None, f"HTTP status {response.status}"
    kind: type[RemoteError] = Refused
    if response.status in (408, 429) or response.status >= 500:
        kind = Unreachable
    elif response.status == 404:
        kind = Gone
    raise kind(detail, reason=reason)


def line(error: Exception) -> str:
    """An error in one line; it may quote the remote's bytes."""
    return clean(str(error), limits.DETAIL_CHARS) or type(error).__name__


def stranger(peer: str, address: str) -> Unreachable:
    """Somebody answers at a member's address, but not that member."""
    return Unreachable(f"another peer than {short(peer)} answers at {address}", reason="identity")
