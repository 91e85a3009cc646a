"""The calling half: hello, ask, fetch and push over mutual TLS, one set of connections per remote.

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
import http.client
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from io import FileIO
from types import TracebackType
from typing import TypeVar

import aiohttp

from braintorrent.errors import BadMessage, Refused, Unreachable
from braintorrent.network import limits
from braintorrent.network.body import Sink, Unanswered
from braintorrent.network.conduct import Conduct, is_fault
from braintorrent.network.dialling import Dialling
from braintorrent.network.remote import Parts, Remote, check, look, read, stranger
from braintorrent.network.wire import PROTOCOL, Hello, decode_hello, decode_tell, encode_ask, encode_hello, line
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import Identity, digest, short

T = TypeVar("T")


class Client:
    """Calls other peers as `identity`; use as `async with Client(...)`. `trusted` is asked before each request.

    rotation: how this lab came to its key (encode_chain), for those who know an old one; or empty.
    dialling: where it calls. conduct: where faults of answers are noted; who is banned is not called.
    received, sent: body bytes by peer id. Every method raises RemoteErrors only, beside what a sink raises.
    """

    def __init__(
        self, identity: Identity, trusted: Callable[[str], bool], *, dialling: Dialling | None = None,
        conduct: Conduct | None = None, rotation: bytes = b"",
    ) -> None:  # fmt: skip
        self.dialling = dialling or Dialling()
        self.received: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._identity, self._rotation = identity, rotation
        self._trusted, self._conduct = trusted, conduct or Conduct()
        self._remotes: dict[str, Remote] = {}
        self._threads = ThreadPoolExecutor(limits.FETCHES, thread_name_prefix="fetch")

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
            await remote.close()
        self._threads.shutdown()

    async def forget(self, peer: str) -> None:
        """Drop all connections to `peer`, downloads included: it left the roster. Harmless if there are none."""
        self.dialling.forget(peer)
        remote = self._remotes.pop(peer, None)
        if remote is not None:
            await remote.close()

    async def identify(self, address: str) -> str:
        """The peer id behind `address`: its handshake proves that key, and says nothing of the roster."""
        return (await look(address, self.dialling))[0]

    async def hello(self, peer: str, address: str, hello: Hello) -> Hello:
        """Say hello and return the answer; Refused carries the other side's reason and detail."""
        body, seconds = encode_hello(hello), limits.HELLO_SECONDS
        return await self._post(peer, address, "/v1/hello", body, seconds, limits.HELLO_BYTES, decode_hello)

    async def ask(
        self, peer: str, address: str, ask: AskMessage, deadline: float, protocol: int = PROTOCOL
    ) -> TellMessage:  # fmt: skip
        """Ask, and return what `peer` tells within `deadline` seconds, without addresses that nobody should dial.

        protocol: agreed on with it in hello.
        """
        body, cap, decode = encode_ask(ask, protocol), limits.TELL_BYTES, partial(decode_tell, protocol=protocol)
        tell = await self._post(peer, address, "/v1/ask", body, deadline, cap, decode)
        found = {p: tuple(filter(self.dialling.plausible, claimed)) for p, claimed in tell.addresses.items()}
        return replace(tell, addresses=found)

    async def fetch(self, peer: str, address: str, blob: str, size: int, sink: Sink, offset: int = 0) -> None:
        """Bytes `offset` to `size` of a blob into `sink`, which checks them. Gone if the peer has it no more.

        A fetch that breaks off leaves the sink as far as it came; call again with that offset.
        """
        if not 0 <= offset < size:
            return
        seconds = limits.STALL_SECONDS + (size - offset) / limits.BYTES_PER_SECOND
        async with self._reaching(peer, address, seconds) as remote:
            await remote.download(
                address, f"/v1/blobs/{blob}", offset, size, sink, self._threads, partial(self._count, peer)
            )

    async def fetch_small(self, peer: str, address: str, blob: str, size_cap: int) -> bytes:
        """A whole blob of at most `size_cap` bytes, its digest checked."""
        seconds = limits.STALL_SECONDS + size_cap / limits.BYTES_PER_SECOND
        async with self._exchange(peer, address, seconds, "GET", f"/v1/blobs/{blob}") as response:
            data = await self._read(response.content, peer, size_cap)
            if digest(data) != blob:
                raise BadMessage(f"{short(peer)} sent other bytes than blob {blob[:16]}", reason="digest")
        return data

    async def push(
        self, peer: str, address: str, blob: str, file: FileIO, pace: Callable[[str, int], float] = lambda *_: 0.0
    ) -> None:
        """Send a blob, the whole of an open file, to a peer that wants it; Refused if it does not any more.

        pace: told the peer and the bytes of each block, says how many seconds the next has to wait.
        """
        descriptor, patience = file.fileno(), limits.BLOCK / limits.BYTES_PER_SECOND
        size, loop = os.fstat(descriptor).st_size, asyncio.get_running_loop()

        async def parts() -> AsyncIterator[bytes]:
            start = 0  # not the file's own position: a thread may still read for an attempt that broke off
            while part := await loop.run_in_executor(self._threads, os.pread, descriptor, limits.BLOCK, start):
                start += len(part)
                moving.reschedule(loop.time() + patience)
                self.sent[peer] += len(part)
                yield part
                if wait := pace(peer, len(part)):
                    moving.reschedule(loop.time() + patience + wait)
                    await asyncio.sleep(wait)
            moving.reschedule(None)  # from here on the session waits for the answer, and not for ever

        seconds = limits.STALL_SECONDS + size / limits.BYTES_PER_SECOND
        with _translating(peer, address):
            async with asyncio.timeout(None) as moving:
                async with self._exchange(peer, address, seconds, "PUT", f"/v1/blobs/{blob}", Parts(size, parts)):
                    pass

    def _count(self, peer: str, received: int) -> None:
        self.received[peer] += received

    async def _post(
        self, peer: str, address: str, path: str, body: bytes, seconds: float, cap: int, decode: Callable[[bytes], T]
    ) -> T:
        async with self._exchange(peer, address, seconds, "POST", path, body=body) as response:
            self.sent[peer] += len(body)
            return decode(await self._read(response.content, peer, cap))

    async def _read(self, content: aiohttp.StreamReader, peer: str, cap: int) -> bytes:
        data = await read(content, cap)
        self._count(peer, len(data))
        return data

    @asynccontextmanager
    async def _exchange(
        self, peer: str, address: str, seconds: float, method: str, path: str, body: bytes | Parts | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request and its good answer, the whole of it within `seconds`."""
        async with (
            self._reaching(peer, address, seconds) as remote,
            await remote.request(address, method, path, body) as response,
        ):
            await check(response, 200)
            yield response

    @asynccontextmanager
    async def _reaching(self, peer: str, address: str, seconds: float) -> AsyncIterator[Remote]:
        """A trusted peer for one request of at most `seconds`; every fault of it as a RemoteError, and noted."""
        if not self._trusted(peer):
            await self.forget(peer)
            raise Refused(f"{short(peer)} is not on this peer's roster", reason="roster")
        if (ban := self._conduct.banned(peer)) is not None:
            raise Unreachable(f"{short(peer)} is not called: {ban}", reason="banned")
        self.dialling.check(peer, address)
        try:
            with _translating(peer, address):
                async with asyncio.timeout(seconds):
                    yield self._remotes.get(peer) or await self._meet(peer, address)
        except BadMessage as error:
            if is_fault(error):
                self._conduct.offend(peer, f"{error.reason}: {error.detail}")
            raise
        self.dialling.worked(peer, address)

    async def _meet(self, peer: str, address: str) -> Remote:
        answering, der = await look(address, self.dialling)
        if answering != peer:
            raise stranger(peer, address)
        if peer not in self._remotes:  # another task may have met it meanwhile
            self._remotes[peer] = Remote(self._identity, der, self.dialling, self._rotation)
        return self._remotes[peer]


@contextmanager
def _translating(peer: str, address: str) -> Iterator[None]:
    """What libraries raise, as RemoteErrors."""
    try:
        yield
    except TimeoutError:
        raise Unreachable(f"{short(peer)} at {address} gave no complete answer in time") from None
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError):
        raise stranger(peer, address) from None
    except (aiohttp.ClientResponseError, http.client.HTTPException) as error:
        raise BadMessage(f"{short(peer)} at {address} does not speak HTTP: {line(error)}", reason="http") from None
    except (aiohttp.ClientError, Unanswered, ConnectionError, UnicodeError) as error:
        raise Unreachable(f"{short(peer)} at {address}: {line(error)}") from None
    except RuntimeError as error:
        if str(error) != "Session is closed":  # aiohttp's way to say that `forget` came in between
            raise
        raise Unreachable(f"{short(peer)} left the roster in mid-question") from None
