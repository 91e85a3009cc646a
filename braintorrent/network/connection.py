"""One accepted connection: aiohttp's, with the deadlines that aiohttp lacks.

A request's head must arrive whole within HEAD_SECONDS, what is sent must be read, and who showed no key is
cut off after STRANGER_SECONDS whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from braintorrent.network import limits
from braintorrent.network.callers import Caller, Callers
from braintorrent.network.tls import certified, shown_certificate
from braintorrent.records import short

log = logging.getLogger(__name__)


class Http(web.Server):
    """aiohttp's server of `answer`, whose connections are ours."""

    def connection(
        self, caller: Caller, callers: Callers, trusted: Callable[[str], bool], slow: Callable[[str], None]
    ) -> Connection:
        """The protocol for `caller`. slow: told the peer id of one that does not finish the head of a request."""
        return Connection(caller, callers, trusted, slow, self, loop=self._loop, **self._kwargs)


class Connection(web.RequestHandler):
    """Where `caller` is heard, and whom `callers` gets to know by its certificate."""

    __slots__ = ("_caller", "_callers", "_head", "_slow", "_started", "_trusted", "_unread", "answering")

    def __init__(
        self, caller: Caller, callers: Callers, trusted: Callable[[str], bool], slow: Callable[[str], None],
        http: Http, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(http, **options)
        self.answering = False  # a request is being answered: what arrives is its body, or waits its turn
        self._caller, self._callers, self._trusted, self._slow = caller, callers, trusted, slow
        self._head: asyncio.TimerHandle | None = None  # until when the head of a request must be here
        self._unread: asyncio.TimerHandle | None = None  # until when what was sent must be read
        self._started = False  # some of that head is here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._caller.drop, self._caller.busy = transport.abort, lambda: self.answering
        certificate = shown_certificate(transport.get_extra_info("ssl_object"))
        peer = certified(certificate) if certificate is not None else ""
        if peer and self._trusted(peer):  # anchors cannot be taken back: its key may be a former member's
            self._callers.know(self._caller, peer)
        else:
            self._loop.call_later(limits.STRANGER_SECONDS, transport.abort)
        self._head = self._loop.call_later(limits.HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._callers.leave(self._caller)
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.answering and data:
            self._started = True
            if self._head is None:
                self._head = self._loop.call_later(limits.HEAD_SECONDS, self._give_up)
        super().data_received(data)

    def begin(self) -> None:
        """The head of a request is here, whole."""
        self.answering, self._started = True, False
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def end(self) -> None:
        """It is answered."""
        self.answering = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._loop.call_later(limits.BLOCK / limits.BYTES_PER_SECOND, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _give_up(self) -> None:
        if self._caller.peer and self._started:
            self._slow(self._caller.peer)
        log.info("%s is too slow: its connection is dropped", short(self._caller.peer) or "a stranger")
        self._caller.drop()
