"""The calling half: hello, ask and fetch over mutual TLS, one set of connections per remote.

First contact takes three handshakes, each a few milliseconds:

1. an unverified one on which nothing is sent, to get the remote's certificate. The handshake proves the
   key, the certificate is compared with what that key must make, and its peer id with the one expected;
2. one that trusts that certificate only and shows none of ours, to introduce our certificate (server.py
   says why that is harmless);
3. the mutual one, kept open, on which everything with content is said.

Later ones start at 3. When a connection breaks before it answers, the remote may have restarted and
forgotten our certificate: introduce it again and try once more; every request here can be repeated.

No redirect, proxy, cookie or compression is ever followed, used, kept or undone.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import aiohttp

from braintorrent.errors import BadMessage, Gone, Refused, RemoteError, Unreachable
from braintorrent.network import limits
from braintorrent.network.address import Address, parse_address
from braintorrent.network.body import Sink, pour
from braintorrent.network.tls import certificate, certified, client_context, shown_certificate, to_der
from braintorrent.network.wire import Hello, clean, decode_error, decode_hello, decode_tell, encode_ask, encode_hello
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import Identity, digest, short


@dataclass
class _Remote:
    """What this client keeps of one peer."""

    certificate: bytes
    session: aiohttp.ClientSession
    introductions: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


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


class Client:
    """Calls other peers as `identity`; use as `async with Client(...)`. `trusted` is asked before each request.

    received, sent: body bytes by peer id. Every method raises RemoteErrors only, beside what a sink raises.
    """

    def __init__(self, identity: Identity, trusted: Callable[[str], bool]) -> None:
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._identity = identity
        self._trusted = trusted
        self._certificate = to_der(certificate(identity))
        self._remotes: dict[str, _Remote] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="fetch")

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop all connections. Idempotent."""
        remotes, self._remotes = self._remotes, {}
        for remote in remotes.values():
            await remote.session.close()
        self._threads.shutdown()

    async def identify(self, address: str) -> str:
        """The peer id behind `address`: its handshake proves that key, and says nothing of the roster."""
        return certified(await _look(address))

    async def hello(self, peer: str, address: str, hello: Hello) -> Hello:
        """Say hello and return the answer; Refused carries the other side's reason and detail."""
        body, seconds = encode_hello(hello), limits.HELLO_SECONDS
        return decode_hello(await self._post(peer, address, "/v1/hello", body, seconds, limits.HELLO_BYTES))

    async def ask(self, peer: str, address: str, ask: AskMessage, deadline: float) -> TellMessage:
        """Ask, and return what `peer` tells within `deadline` seconds."""
        return decode_tell(await self._post(peer, address, "/v1/ask", encode_ask(ask), deadline, limits.TELL_BYTES))

    async def fetch(self, peer: str, address: str, blob: str, size: int, sink: Sink, offset: int = 0) -> None:
        """Bytes `offset` to `size` of a blob into `sink`, which checks them. Gone if the peer has it no more.

        A fetch that breaks off leaves the sink as far as it came; call again with that offset.
        """
        if not 0 <= offset < size:
            return
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        seconds = limits.STALL_SECONDS + (size - offset) / limits.BYTES_PER_SECOND
        async with self._exchange(peer, address, seconds, "GET", f"/v1/blobs/{blob}", headers=headers) as response:
            part = f"bytes {offset}-{size - 1}/{size}" if offset else None
            if response.content_length != size - offset or response.headers.get("Content-Range") != part:
                raise BadMessage(f"{short(peer)} offers another size for blob {blob[:16]}", reason="size")
            await pour(response, size - offset, sink, self._threads, partial(self._count, peer))

    async def fetch_small(self, peer: str, address: str, blob: str, size_cap: int) -> bytes:
        """A whole blob of at most `size_cap` bytes, its digest checked."""
        seconds = limits.STALL_SECONDS + size_cap / limits.BYTES_PER_SECOND
        async with self._exchange(peer, address, seconds, "GET", f"/v1/blobs/{blob}") as response:
            data = await self._read(response.content, peer, size_cap)
        if digest(data) != blob:
            raise BadMessage(f"{short(peer)} sent other bytes than blob {blob[:16]}", reason="digest")
        return data

    def _count(self, peer: str, received: int) -> None:
        self.received[peer] += received

    async def _post(self, peer: str, address: str, path: str, body: bytes, seconds: float, cap: int) -> bytes:
        async with self._exchange(peer, address, seconds, "POST", path, body=body) as response:
            self.sent[peer] += len(body)
            return await self._read(response.content, peer, cap)

    async def _read(self, content: aiohttp.StreamReader, peer: str, cap: int) -> bytes:
        data = await _capped(content, cap)
        self._count(peer, len(data))
        return data

    @asynccontextmanager
    async def _exchange(
        self, peer: str, address: str, seconds: float, method: str, path: str, *,
        body: bytes | None = None, headers: dict[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """One request and its good answer, the whole of it within `seconds`; every fault as a RemoteError."""
        if not self._trusted(peer):
            await self._forget(peer)
            raise Refused(f"{short(peer)} is not on this peer's roster", reason="roster")
        url = f"https://{_dialable(address)}"
        try:
            async with asyncio.timeout(seconds):
                remote = self._remotes.get(peer) or await self._meet(peer, address)
                async with await self._request(remote, url, method, path, body, headers) as response:
                    await _check(response, 206 if headers else 200)
                    yield response
        except TimeoutError:
            raise Unreachable(f"{short(peer)} at {address} gave no complete answer in time") from None
        except aiohttp.ClientConnectorCertificateError:
            raise _stranger(peer, address) from None
        except aiohttp.ClientResponseError as error:
            raise BadMessage(f"{short(peer)} at {address} does not speak HTTP: {_line(error)}", reason="http") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"{short(peer)} at {address}: {_line(error)}") from None

    async def _meet(self, peer: str, address: str) -> _Remote:
        der = await _look(address)
        if certified(der) != peer:
            raise _stranger(peer, address)
        if peer not in self._remotes:  # another task may have met it meanwhile
            self._remotes[peer] = _Remote(der, _session(der, client_context(self._identity, der)))
        return self._remotes[peer]

    async def _forget(self, peer: str) -> None:
        remote = self._remotes.pop(peer, None)
        if remote is not None:
            await remote.session.close()

    async def _request(
        self, remote: _Remote, url: str, method: str, path: str, body: bytes | None, headers: dict[str, str] | None
    ) -> aiohttp.ClientResponse:
        introductions = remote.introductions
        try:
            return await remote.session.request(method, url + path, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
            raise
        except aiohttp.ClientConnectionError:
            await self._introduce(remote, url, introductions)
        return await remote.session.request(method, url + path, data=body, headers=headers, allow_redirects=False)

    async def _introduce(self, remote: _Remote, url: str, introductions: int) -> None:
        async with remote.lock:
            if remote.introductions != introductions:
                return  # another task has just done it
            async with (
                _session(remote.certificate, client_context(None, remote.certificate)) as session,
                session.post(f"{url}/v1/hello", data=self._certificate, allow_redirects=False) as response,
            ):
                await _check(response, 200)
            remote.introductions += 1


def _session(pin: bytes, context: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Pinned(pin, context), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=limits.HANDSHAKE_SECONDS, sock_read=limits.STALL_SECONDS
        ),
        max_line_size=limits.LINE_BYTES, max_field_size=limits.LINE_BYTES,
        skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
    )  # fmt: skip


def _dialable(address: str) -> Address:
    try:
        return parse_address(address)
    except ValueError as error:
        raise Unreachable(str(error), reason="address") from None


async def _look(address: str) -> bytes:
    """The certificate of whoever answers at `address`, DER; nothing is sent to it but the handshake."""
    host, port = _dialable(address)
    try:
        async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=client_context(None, None), server_hostname="")
    except OSError as error:
        raise Unreachable(f"{address}: {_line(error)}") from None
    der = shown_certificate(writer.get_extra_info("ssl_object"))
    writer.transport.abort()
    if der is None:
        raise BadMessage(f"{address} shows no certificate", reason="certificate")
    return der


async def _capped(content: aiohttp.StreamReader, cap: int) -> bytes:
    data = bytearray()
    while chunk := await content.readany():
        data += chunk
        if len(data) > cap:
            raise BadMessage(f"an answer of more than {cap} bytes", reason="too-large")
    return bytes(data)


async def _check(response: aiohttp.ClientResponse, expected: int) -> None:
    """Return for the status asked for; otherwise raise what the other side says is wrong."""
    if response.status == expected:
        return
    if response.status < 400:
        raise BadMessage(f"status {response.status} where an answer was due", reason="status")
    try:
        reason, detail = decode_error(await _capped(response.content, limits.ERROR_BYTES))
    except BadMessage:
        reason, detail = None, f"HTTP status {response.status}"
    kind: type[RemoteError] = Refused
    if response.status in (408, 429) or response.status >= 500:
        kind = Unreachable
    elif response.status == 404:
        kind = Gone
    raise kind(detail, reason=reason)


def _line(error: Exception) -> str:
    """An error in one line; it may quote the remote's bytes."""
    return clean(str(error), limits.DETAIL_CHARS) or type(error).__name__


def _stranger(peer: str, address: str) -> Unreachable:
    return Unreachable(f"another peer than {short(peer)} answers at {address}", reason="identity")
