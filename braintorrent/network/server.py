"""The listening half: open and close, who is connected, and nothing of what is said (answering.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType

from braintorrent.network import limits
from braintorrent.network.address import Address
from braintorrent.network.answering import Answers, Handlers
from braintorrent.network.buckets import Pace
from braintorrent.network.conduct import Conduct
from braintorrent.network.connection import Http
from braintorrent.network.listener import Listener
from braintorrent.network.receiving import Inbox
from braintorrent.network.tls import server_context
from braintorrent.records import Identity

log = logging.getLogger(__name__)
_http_log = log.getChild("http")
_http_log.setLevel(logging.CRITICAL)  # or anyone's garbage would fill our log with tracebacks


class Server:
    """Serves `handlers` on `listen` ("host:port"; port 0 takes a free one) between `async with` and its end.

    certs: DER certificates of peers that need no introduction. conduct: where faults of callers are noted.
    bytes_per_second: of blobs to each peer; None without bound. inbox: what callers were asked to send.
    pace: how fast each peer is sent blobs. received, sent: body bytes by peer id. address: where it listens.
    BusyError if the port is taken.
    """

    def __init__(
        self, identity: Identity, handlers: Handlers, listen: str, certs: Iterable[bytes] = (), *,
        conduct: Conduct | None = None, bytes_per_second: float | None = None, inbox: Inbox | None = None,
    ) -> None:  # fmt: skip
        self.conduct = conduct or Conduct()
        self._context = server_context(identity, certs)
        self.pace = Pace(bytes_per_second)
        self._answers = Answers(handlers, self._context, self.conduct, self.pace, inbox or Inbox())
        self.received, self.sent = self._answers.received, self._answers.sent
        self._handlers, self._listen = handlers, listen
        self._listener: Listener | None = None

    @property
    def address(self) -> Address:
        """Where the server listens, with the real port."""
        return self._opened.address

    @property
    def _opened(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("the server is not open")
        return self._listener

    async def __aenter__(self) -> Server:
        handlers = self._handlers
        self._http = http = Http(
            self._answers.answer, access_log=None, auto_decompress=False, keepalive_timeout=limits.IDLE_SECONDS,
            lingering_time=limits.LINGER_SECONDS, max_line_size=limits.LINE_BYTES, max_field_size=limits.LINE_BYTES,
            max_headers=limits.HEADERS, logger=_http_log,
        )  # fmt: skip
        self._listener = listener = Listener(
            self._listen,
            self._context,
            lambda caller: http.connection(caller, listener.callers, handlers.trusted, self._slow),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def disconnect(self, peer: str) -> None:
        """Close all connections of `peer` at once, whatever is being said on them: it left the roster."""
        self._opened.callers.disconnect(peer)
        self.pace.forget(peer)
        self.conduct.forget(peer)

    async def close(self, deadline: float = limits.CLOSE_SECONDS) -> None:
        """Refuse new requests (503), let running ones end within `deadline` seconds, then close. Idempotent."""
        if self._answers.closing or self._listener is None:
            return
        self._answers.closing = True
        try:
            async with asyncio.timeout(deadline):
                await self._answers.quiet.wait()
                await self._listener.close()  # who came only now would be waited for as well
                for transport in self._transports():
                    transport.close()  # politely: the end of an answer may still wait in its buffer
                while self._http.connections:  # noqa: ASYNC110 - aiohttp tells nobody when the last one goes
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.info("closing with %d requests unanswered", self._answers.active)
        await self._listener.close()
        transports = self._transports()
        await self._http.shutdown(0.1)
        for transport in transports:
            transport.abort()
        self._answers.threads.shutdown()

    def _transports(self) -> list[asyncio.Transport]:
        return [c.transport for c in self._http.connections if c.transport is not None]

    def _slow(self, peer: str) -> None:
        self.conduct.offend(peer, f"slow: a request's head took more than {limits.HEAD_SECONDS:g} s")
