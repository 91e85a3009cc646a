"""What is said to each request: hello, ask and blobs, through handlers that know nothing of HTTP.

    POST /v1/hello           without a client certificate: an introduction, see below
                             with one: Hello in, Hello out
    POST /v1/join            without a client certificate, by a code: see joining.py
    POST /v1/ask             AskMessage in, TellMessage out
    GET  /v1/blobs/DIGEST    the bytes; "Range: bytes=N-" resumes at N
    PUT  /v1/blobs/DIGEST    the bytes, if an answer to this caller's ask wanted them: see receiving.py

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
import ssl
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, cast

from aiohttp import web

from braintorrent.errors import BadMessage, Gone, Refused, RemoteError, StorageFull, Unreachable
from braintorrent.network import limits
from braintorrent.network.buckets import Pace
from braintorrent.network.conduct import Conduct, is_fault
from braintorrent.network.connection import Connection
from braintorrent.network.receiving import Inbox, receive
from braintorrent.network.streaming import stream
from braintorrent.network.tls import admit, certified, cut_certificate, shown_certificate
from braintorrent.network.wire import Hello, decode_ask, decode_hello, encode_error, encode_hello, encode_tell
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import short

log = logging.getLogger(__name__)

_BLOB = re.compile(r"/v1/blobs/([0-9a-f]{64})")
_HELLO, _ASK, _JOIN = ("POST", "/v1/hello"), ("POST", "/v1/ask"), ("POST", "/v1/join")
_RANGE = re.compile(r"bytes=(\d{1,15})-")
_STATUS: dict[type[RemoteError], int] = {BadMessage: 400, Refused: 403, Gone: 404, Unreachable: 408}
_FAULTS = ("too-large", "slow", "range", "path", "flood")  # of what is declined, what no sound peer does
_LAST = ("banned", "roster")  # said once


class Handlers(Protocol):
    """What the server asks of the node. Quick and, but for a join, synchronous: it runs on the event loop."""

    def trusted(self, peer: str) -> bool:
        """Whether `peer` is on the roster now."""

    def follow(self, rotation: bytes) -> None:
        """Somebody unproven brings these bytes: rotations, how it came to its key. BadMessage if they are none."""

    def hello(self, caller: str, hello: Hello) -> Hello:
        """Answer a hello, or raise Refused: its reason and detail travel to the caller."""

    async def join(self, body: bytes) -> bytes:
        """Answer a request to join of any bytes, or raise what is wrong with it."""

    def protocol(self, caller: str) -> int:
        """The one agreed on with `caller` in hello; before that, any."""

    def ask(self, caller: str, ask: AskMessage) -> TellMessage:
        """Answer an ask, or raise Refused (reason "hello": none came first in this process's life)."""

    def blob(self, caller: str, digest: str) -> tuple[int, int] | None:
        """An open descriptor, which the server closes, and the blob's size in bytes; None if it is not here."""


class Declined(RemoteError):
    """A request answered with an HTTP status of its own."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail, reason=reason)
        self.status = status


class Answers:
    """Answers requests until `closing` is set. received, sent: body bytes by peer id.

    context: the listener's, into which introductions go. inbox: what callers were asked to send.
    """

    def __init__(
        self, handlers: Handlers, context: ssl.SSLContext, conduct: Conduct, pace: Pace, inbox: Inbox
    ) -> None:  # fmt: skip
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.closing = False
        self.active = 0  # requests being answered
        self.quiet = asyncio.Event()  # set while there are none
        self.quiet.set()
        self.threads = ThreadPoolExecutor(2, thread_name_prefix="serve")
        self._handlers, self._context, self._conduct, self._pace = handlers, context, conduct, pace
        self._inbox = inbox

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to any request of anyone."""
        self.active += 1
        self.quiet.clear()
        connection = cast(Connection, request.protocol)
        connection.begin()
        caller = ""
        try:
            certificate = shown_certificate(request.get_extra_info("ssl_object"))
            if certificate is None:
                return _last(await self._introduce(request))
            caller = certified(certificate)
            return await self._route(request, caller)
        except RemoteError as error:
            status = error.status if isinstance(error, Declined) else _STATUS.get(type(error), 400)
            response = _response(status, encode_error(error.reason, error.detail))
            if caller and (is_fault(error) or (isinstance(error, Declined) and error.reason in _FAULTS)):
                self._conduct.offend(caller, f"{error.reason}: {error.detail}")
            return response if caller and error.reason not in _LAST else _last(response)
        except ConnectionError:  # the caller is gone
            raise
        except Exception:
            log.exception("a request failed: %s %s", request.method, request.path[:100])
            raise  # aiohttp answers 500, or hangs up in mid-answer
        finally:
            connection.end()
            self.active -= 1
            if not self.active:
                self.quiet.set()

    async def _introduce(self, request: web.BaseRequest) -> web.StreamResponse:
        route = request.method, request.raw_path
        if route not in (_HELLO, _JOIN):
            raise Refused("only a hello, or a join, may come without a certificate", reason="anonymous")
        self._check_open()
        if route == _JOIN:
            return _response(200, await self._handlers.join(await self._body(request, limits.JOIN_BYTES, None)))
        der, rotation = cut_certificate(await self._body(request, limits.CERTIFICATE_BYTES, None))
        if rotation:
            self._handlers.follow(rotation)
        self._check_roster(certified(der))
        log.debug("%s introduced its certificate", short(admit(self._context, der)))
        return _response(200, b"")

    async def _route(self, request: web.BaseRequest, caller: str) -> web.StreamResponse:
        self._check_roster(caller)
        self._check_open()
        if (ban := self._conduct.banned(caller)) is not None:
            raise Declined(429, "banned", ban)
        await self._wait(caller)
        route = request.method, request.raw_path
        if route == _HELLO:
            hello = decode_hello(await self._body(request, limits.HELLO_BYTES, caller))
            return self._reply(caller, encode_hello(self._handlers.hello(caller, hello)))
        if route == _ASK:
            body, protocol = await self._body(request, limits.ASK_BYTES, caller), self._handlers.protocol(caller)
            tell = self._handlers.ask(caller, decode_ask(body, caller, protocol))
            return self._reply(caller, encode_tell(tell, protocol))
        blob = _BLOB.fullmatch(route[1])
        if route[0] == "GET" and blob is not None:
            return await self._blob(request, caller, blob[1])
        if route[0] == "PUT" and blob is not None:
            return await self._take(request, caller, blob[1])
        raise Declined(404, "path", "there is no such thing here")

    def _check_open(self) -> None:
        if self.closing:
            raise Declined(503, "closing", "this peer is leaving")

    def _check_roster(self, peer: str) -> None:
        if not self._handlers.trusted(peer):
            raise Refused("the peer asked does not have the caller on its roster", reason="roster")

    async def _wait(self, caller: str) -> None:
        wait = self._pace.request(caller)
        if wait is None:
            raise Declined(429, "flood", f"more than {limits.REQUESTS_PER_SECOND} requests a second")
        if wait:
            await asyncio.sleep(wait)

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

    def _reply(self, caller: str, body: bytes) -> web.Response:
        self.sent[caller] += len(body)
        return _response(200, body)

    async def _blob(self, request: web.BaseRequest, caller: str, digest: str) -> web.StreamResponse:
        if self.streams[caller] >= limits.STREAMS_PER_PEER:
            raise Declined(429, "busy", f"at most {limits.STREAMS_PER_PEER} blobs to one peer at once")
        found = self._handlers.blob(caller, digest)
        if found is None:
            raise Gone(f"no blob {digest[:16]} here")
        descriptor, size = found
        self.streams[caller] += 1
        try:
            start = _start(request.headers.getall("Range", []), size)
            trusted, sent = partial(self._handlers.trusted, caller), partial(self._sent, caller)
            return await stream(request, descriptor, start, size, self.threads, trusted, sent)
        finally:
            self.streams[caller] -= 1
            os.close(descriptor)

    async def _take(self, request: web.BaseRequest, caller: str, digest: str) -> web.StreamResponse:
        def received(size: int) -> None:
            self.received[caller] += size

        parcel = await self._inbox.parcel(caller, digest)
        try:
            await receive(request, parcel, self.threads, partial(self._handlers.trusted, caller), received)
        except StorageFull:
            raise Declined(503, "full", "no room on the disk here") from None
        return _response(200, b"")

    def _sent(self, caller: str, size: int) -> float:
        self.sent[caller] += size
        return self._pace.sent(caller, size)


def _response(status: int, body: bytes) -> web.Response:
    headers = {"Server": "braintorrent", "Content-Type": "application/msgpack"}
    return web.Response(status=status, body=body, headers=headers)


def _last(response: web.StreamResponse) -> web.StreamResponse:
    response.force_close()  # nothing more is heard on this connection
    return response


def _start(ranges: list[str], size: int) -> int:
    """First byte wanted: 0 without a Range, N of "bytes=N-"; anything else is declined."""
    if not ranges:
        return 0
    match = _RANGE.fullmatch(ranges[0]) if len(ranges) == 1 else None
    if match is None or int(match[1]) >= size:
        raise Declined(416, "range", f'only "bytes=N-" with N below {size}')
    return int(match[1])
