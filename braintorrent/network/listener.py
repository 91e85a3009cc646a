"""A listening socket: accepts up to a cap, and gives each caller a few seconds for its handshake.

aiohttp's own sites know neither cap nor deadline, so a silent caller would hold a connection for a minute.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from braintorrent.errors import BusyError, ConfigError
from braintorrent.network import limits
from braintorrent.network.address import Address, parse_address
from braintorrent.network.callers import Caller, Callers

log = logging.getLogger(__name__)

# A handshake that fails leaves its buffer to the garbage collector: strangers could make it a hundred MiB.
asyncio.sslproto.SSLProtocol.max_size = limits.TLS_BUFFER  # type: ignore[misc,unused-ignore]


class Listener:
    """Accepts TLS connections from now until `close`; `speak` makes the protocol for each. callers: all of them."""

    def __init__(self, listen: str, context: ssl.SSLContext, speak: Callable[[Caller], asyncio.Protocol]) -> None:
        self.callers = Callers()
        self._context, self._speak = context, speak
        self._socket = bind(listen)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(), name="accept")

    @property
    def address(self) -> Address:
        """Where it listens, with the real port."""
        return Address(*self._socket.getsockname()[:2])

    async def close(self) -> None:
        """Accept nobody more and drop unfinished handshakes; open connections are not touched. Idempotent."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, where = await loop.sock_accept(self._socket)
            except OSError as error:  # out of descriptors, or the caller gave up
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            caller = self.callers.admit(where[0], connection.close)
            if caller is None:
                connection.close()
                await asyncio.sleep(0)
                continue
            task = asyncio.create_task(self._handshake(connection, caller))
            caller.drop = task.cancel
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
            task.add_done_callback(partial(_release, connection))
            await asyncio.sleep(0)  # a waiting connection is accepted at once: handshakes in hand get their turn first

    async def _handshake(self, connection: socket.socket, caller: Caller) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._speak(caller), connection, ssl=self._context,
                ssl_handshake_timeout=limits.ACCEPT_SECONDS, ssl_shutdown_timeout=limits.CLOSE_SECONDS,
            )  # fmt: skip
        except OSError as error:  # not TLS, TLS 1.2, a certificate not introduced, too slow, gone again
            log.debug("handshake failed: %s", error)
            self.callers.leave(caller)


def _release(connection: socket.socket, handshake: asyncio.Task[None]) -> None:
    if handshake.cancelled():  # perhaps before it began, when no transport closes the socket
        connection.close()


def bind(listen: str) -> socket.socket:
    """A socket that listens; BusyError or ConfigError says why none can."""
    try:
        address = parse_address(listen)
    except ValueError as error:
        raise ConfigError(f"listen: {error}") from None
    every = address.host == "::" and socket.has_dualstack_ipv6()  # [::] takes IPv4 callers too
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server(address, family=family, backlog=limits.CONNECTIONS, dualstack_ipv6=every)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BusyError(f"port {address.port} is in use by another process; choose another `listen`") from None
        raise ConfigError(f"cannot listen on {listen}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
