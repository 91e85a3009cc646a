"""The listening half: hello, ask and blobs over mutual TLS, through handlers that know nothing of HTTP.

    POST /v1/hello           without a client certificate: an introduction, see below
                             with one: Hello in, Hello out
    POST /v1/join            without a client certificate, by a code: see joining.py
    POST /v1/ask             AskMessage in, TellMessage out
    GET  /v1/blobs/DIGEST    the bytes; "Range: bytes=N-" resumes at N

A caller whose certificate is not loaded here cannot show it (tls.py says why). So it first comes
without one and brings it as the body of a hello: the introduction. That gives a roster member's
certificate a place among the trust anchors and nothing else. It needs no proof of who sends it, since
a certificate serves only the holder of its key; whatever has content is said on the next connection,
where the handshake proves that key. The answer to an introduction has no body and ends the connection.

Who is not on the roster learns that, and nothing about us; the roster is asked at each request.
Declined requests are answered with a status and [protocol, reason, detail].
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Protocol

from aiohttp import web

from braintorrent.errors import BadMessage, Gone, Refused, RemoteError
from braintorrent.network import limits
from braintorrent.network.address import Address
from braintorrent.network.listener import Listener
from braintorrent.network.streaming import stream
from braintorrent.network.tls import admit, certified, server_context, shown_certificate
from braintorrent.network.wire import Hello, decode_ask, decode_hello, encode_error, encode_hello, encode_tell
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import Identity, short

log = logging.getLogger(__name__)
_http_log = log.getChild("http")
_http_log.setLevel(logging.CRITICAL)  # or anyone's garbage would fill our log with tracebacks

_BLOB = re.compile(r"/v1/blobs/([0-9a-f]{64})")
_HELLO, _ASK, _JOIN = ("POST", "/v1/hello"), ("POST", "/v1/ask"), ("POST", "/v1/join")
_RANGE = re.compile(r"bytes=(\d{1,15})-")
_STATUS: dict[type[RemoteError], int] = {BadMessage: 400, Refused: 403, Gone: 404}


class Handlers(Protocol):
    """What the server asks of the node. Quick and, but for a join, synchronous: it runs on the event loop."""

    def trusted(self, peer: str) -> bool:
        """Whether `peer` is on the roster now."""

    def hello(self, caller: str, hello: Hello) -> Hello:
        """Answer a hello, or raise Refused: its reason and detail travel to the caller."""

    async def join(self, body: bytes) -> bytes:
        """Answer a request to join of any bytes, or raise what is wrong with it."""

    def ask(self, caller: str, ask: AskMessage) -> TellMessage:
        """Answer an ask, or raise Refused (reason "hello": none came first in this process's life)."""

    def blob(self, caller: str, digest: str) -> tuple[int, int] | None:
        """An open descriptor, which the server closes, and the blob's size in bytes; None if it is not here."""


class Declined(RemoteError):
    """A request answered with an HTTP status of its own."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail, reason=reason)
        self.status = status


class Server:
    """Serves `handlers` on `listen` ("host:port"; port 0 takes a free one) between `async with` and its end.

    received, sent: body bytes by peer id. address: where it listens. BusyError if the port is taken.
    """

    def __init__(self, identity: Identity, handlers: Handlers, listen: str, certs: Iterable[bytes] = ()) -> None:
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._handlers = handlers
        self._context = server_context(identity, certs)
        self._listen = listen
        self._listener: Listener | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="serve")
        self._streams: Counter[str] = Counter()
        self._active = 0  # requests being answered
        self._quiet = asyncio.Event()  # set while there are none
        self._quiet.set()
        self._closing = False

    @property
    def address(self) -> Address:
        """Where the server listens, with the real port."""
        if self._listener is None:
            raise RuntimeError("the server is not open")
        return self._listener.address

    async def __aenter__(self) -> Server:
        self._http = web.Server(
            self._answer, access_log=None, auto_decompress=False, keepalive_timeout=limits.IDLE_SECONDS,
            lingering_time=limits.LINGER_SECONDS, max_line_size=limits.LINE_BYTES, max_field_size=limits.LINE_BYTES,
            max_headers=limits.HEADERS, logger=_http_log,
        )  # fmt: skip
        self._listener = Listener(self._listen, self._context, self._http)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, deadline: float = limits.CLOSE_SECONDS) -> None:
        """Refuse new requests (503), let running ones end within `deadline` seconds, then close. Idempotent."""
        if self._closing or self._listener is None:
            return
        self._closing = True
        try:
            async with asyncio.timeout(deadline):
                await self._quiet.wait()
                for transport in self._transports():
                    transport.close()  # politely: the end of an answer may still wait in its buffer
                while self._http.connections:  # noqa: ASYNC110 - aiohttp tells nobody when the last one goes
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.info("closing with %d requests unanswered", self._active)
        await self._listener.close()
        transports = self._transports()
        await self._http.shutdown(0.1)
        for transport in transports:
            transport.abort()
        self._threads.shutdown()

    def _transports(self) -> list[asyncio.Transport]:
        return [c.transport for c in self._http.connections if c.transport is not None]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._active += 1
        self._quiet.clear()
        try:
            certificate = shown_certificate(request.get_extra_info("ssl_object"))
            if certificate is None:
                return await self._introduce(request)
            return await self._route(request, certified(certificate))
        except RemoteError as error:
            status = error.status if isinstance(error, Declined) else _STATUS.get(type(error), 400)
            return _response(status, encode_error(error.reason, error.detail))
        except ConnectionError:  # the caller is gone
            raise
        except Exception:
            log.exception("a request failed: %s %s", request.method, request.path[:100])
            raise  # aiohttp answers 500, or hangs up in mid-answer
        finally:
            self._active -= 1
            if not self._active:
                self._quiet.set()

    async def _introduce(self, request: web.BaseRequest) -> web.StreamResponse:
        route = request.method, request.raw_path
        if route not in (_HELLO, _JOIN):
            raise Refused("only a hello, or a join, may come without a certificate", reason="anonymous")
        self._check_open()
        if route == _JOIN:
            welcome = await self._handlers.join(await self._body(request, limits.JOIN_BYTES, None))
            return _response(200, welcome, close=True)
        der = await self._body(request, limits.CERTIFICATE_BYTES, None)
        self._check_roster(certified(der))
        log.debug("%s introduced its certificate", short(admit(self._context, der)))
        response = _response(200, b"")
        response.force_close()  # what has content is said on a connection that proves who speaks
        return response

    async def _route(self, request: web.BaseRequest, caller: str) -> web.StreamResponse:
        self._check_roster(caller)
        self._check_open()
        route = request.method, request.raw_path
        if route == _HELLO:
            hello = decode_hello(await self._body(request, limits.HELLO_BYTES, caller))
            return self._reply(caller, encode_hello(self._handlers.hello(caller, hello)))
        if route == _ASK:
            ask = decode_ask(await self._body(request, limits.ASK_BYTES, caller), caller)
            return self._reply(caller, encode_tell(self._handlers.ask(caller, ask)))
        blob = _BLOB.fullmatch(route[1])
        if route[0] == "GET" and blob is not None:
            return await self._blob(request, caller, blob[1])
        raise Declined(404, "path", "there is no such thing here")

    def _check_open(self) -> None:
        if self._closing:
            raise Declined(503, "closing", "this peer is leaving")

    def _check_roster(self, peer: str) -> None:
        if not self._handlers.trusted(peer):
            raise Refused("the peer asked does not have the caller on its roster", reason="roster")

    async def _body(self, request: web.BaseRequest, cap: int, caller: str | None) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(limits.BODY_SECONDS):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > cap:
                        raise Declined(413, "too-large", f"a body of more than {cap} bytes")
        except TimeoutError:
            raise Declined(408, "slow", f"the body took more than {limits.BODY_SECONDS:g} s") from None
        if caller is not None:
            self.received[caller] += len(body)
        return bytes(body)

    def _count_sent(self, caller: str, sent: int) -> None:
        self.sent[caller] += sent

    def _reply(self, caller: str, body: bytes) -> web.Response:
        self._count_sent(caller, len(body))
        return _response(200, body)

    async def _blob(self, request: web.BaseRequest, caller: str, digest: str) -> web.StreamResponse:
        if self._streams[caller] >= limits.STREAMS_PER_PEER:
            raise Declined(429, "busy", f"at most {limits.STREAMS_PER_PEER} blobs to one peer at once")
        found = self._handlers.blob(caller, digest)
        if found is None:
            raise Gone(f"no blob {digest[:16]} here")
        descriptor, size = found
        self._streams[caller] += 1
        try:
            start = _start(request.headers.getall("Range", []), size)
            trusted, count = partial(self._handlers.trusted, caller), partial(self._count_sent, caller)
            return await stream(request, descriptor, start, size, self._threads, trusted, count)
        finally:
            self._streams[caller] -= 1
            os.close(descriptor)


def _response(status: int, body: bytes, *, close: bool = False) -> web.Response:
    headers = {"Server": "braintorrent", "Content-Type": "application/msgpack"}
    response = web.Response(status=status, body=body, headers=headers)
    if close:
        response.force_close()
    return response


def _start(ranges: list[str], size: int) -> int:
    """First byte wanted: 0 without a Range, N of "bytes=N-"; anything else is declined."""
    if not ranges:
        return 0
    match = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if match is None or int(match[1]) >= size:
        raise Declined(416, "range", f'only "bytes=N-" with N below {size}')
    return int(match[1])
