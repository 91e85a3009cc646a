"""One hostile peer: a key, an address of its own, raw bytes over TLS, and a server that answers as it likes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from braintorrent.errors import BadMessage
from braintorrent.network import tls
from braintorrent.network.wire import decode_error, encode_ask, encode_hello, encode_tell
from braintorrent.protocol.messages import Announcement, AskMessage, TellMessage
from braintorrent.protocol.version import Version
from braintorrent.records import Artifact, Identity, Record, digest, encode_record, sign_announcement
from braintorrent.records.content import chunk_digests
from gallery.scene import FEDERATION, Scene, until

Hook = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Answer(NamedTuple):
    """What came back; status 0 if the connection just ended."""

    status: int
    body: bytes = b""

    @property
    def reason(self) -> str:
        """The word of a declined request."""
        try:
            return decode_error(self.body)[0]
        except BadMessage:
            return ""


def declined(answers: list[Answer], status: int, reason: str) -> list[str]:
    """All were declined for this reason, or because of the ban that followed; in words."""
    words = [f"{a.status} {a.reason}" for a in answers]
    assert f"{status} {reason}" in words, words
    assert set(words) <= {f"{status} {reason}", "429 banned"}, words
    return words


def request(method: str, path: str, body: bytes = b"", **headers: object) -> bytes:
    """An HTTP request, whatever it says."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def answer(status: int, body: bytes = b"", **headers: object) -> bytes:
    """An HTTP answer, whatever it says."""
    values = {"Content-Length": len(body)} | {key.replace("_", "-"): value for key, value in headers.items()}
    return "\r\n".join([f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in values.items()), "", ""]).encode() + body


@dataclass
class Mallory:
    """`host`: the loopback address it calls from and listens on, so that what it costs falls on nobody else."""

    scene: Scene
    name: str
    host: str
    identity: Identity = field(default_factory=Identity.create)
    blobs: dict[str, bytes] = field(default_factory=dict)
    offers: list[Announcement] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  # paths that the victim asked for here
    friends: list[Mallory] = field(default_factory=list)
    introduced: bool = False

    @property
    def id(self) -> str:
        """Its peer id."""
        return self.identity.id

    # ------------------------------------------------------------- calling

    def context(self, anonymous: bool = False) -> ssl.SSLContext:
        """What an honest caller would use."""
        pin = tls.to_der(tls.certificate(self.scene.identity))
        return tls.client_context(None if anonymous else self.identity, pin)

    async def plain(self, host: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection without TLS."""
        return await asyncio.open_connection(*self.scene.address, local_addr=(host or self.host, 0))

    async def connect(
        self, *, anonymous: bool = False, context: ssl.SSLContext | None = None, limit: int = 1 << 16, window: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection after the handshake. window: bytes that its socket takes before somebody reads."""
        plain = socket.socket()
        if window:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        plain.setblocking(False)
        plain.bind((self.host, 0))
        try:
            await asyncio.get_running_loop().sock_connect(plain, self.scene.address)
            return await asyncio.open_connection(
                sock=plain, ssl=context or self.context(anonymous), server_hostname="", limit=limit
            )
        except BaseException:
            plain.close()
            raise

    async def send(self, *parts: bytes, anonymous: bool = False, pause: float = 0.0, wait: float = 8.0) -> Answer:
        """Raw bytes over one connection, and the first answer to them."""
        if not anonymous:
            await self.introduce()
        try:
            reader, writer = await self.connect(anonymous=anonymous)
        except (OSError, ssl.SSLError):
            return Answer(0)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
            async with asyncio.timeout(wait):
                return await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            return Answer(0)
        finally:
            writer.transport.abort()

    async def introduce(self, *, force: bool = False) -> Answer:
        """Bring its certificate, once."""
        if self.introduced and not force:
            return Answer(200)
        self.introduced = True
        der = tls.to_der(tls.certificate(self.identity))
        return await self.send(request("POST", "/v1/hello", der), anonymous=True)

    async def hello(self, **changes: Any) -> Answer:
        """Say hello, honestly but for the changes."""
        body = encode_hello(self.scene.hello(**{"name": self.name, **changes}))
        return await self.send(request("POST", "/v1/hello", body))

    async def ask(self, newest: Announcement | None = None, **changes: Any) -> Answer:
        """Ask, after a hello."""
        await self.hello()
        return await self.send(request("POST", "/v1/ask", encode_ask(AskMessage(newest, {}, **changes))))

    # ------------------------------------------------------------- models

    def weights(self, change: Callable[[np.ndarray], object] | None = None) -> bytes:
        """A blob of the agreed schema: the shared start with a mark of its own, and its parameters changed."""
        weights = self.scene.lab.learner.weights().copy()
        weights.view("parameters")[:8] += np.frombuffer(self.identity.public_key, np.uint8)[:8] / np.float32(1000)
        if change is not None:
            change(weights.view("parameters"))
        return self.scene.lab.learner.schema.header + bytes(weights.buffer)

    def offer(self, blob: bytes, counter: int = 1, *, record: bytes | None = None, **changes: Any) -> Announcement:
        """Sign a version of these bytes, and keep them to be fetched."""
        size = changes.pop("size", len(blob))
        if record is None:
            chunks = tuple(chunk_digests([blob]))
            artifact = Artifact(kind="weights", codec="safetensors", size=size, digest=digest(blob), chunks=chunks)
            record = encode_record(Record(parents=(), artifacts=(artifact,), metrics=()))
        fair = Announcement(
            FEDERATION, self.id, Version(changes.pop("incarnation", 1), counter), digest(blob), 10, 3, 0.3,
            self.scene.lab.learner.schema.digest, digest(record), len(record), False,
        )  # fmt: skip
        announcement = sign_announcement(self.identity, replace(fair, **changes))
        self.blobs |= {announcement.content: blob, announcement.record: record}
        self.offers.append(announcement)
        return announcement

    # ------------------------------------------------------------- answering

    def tell(self, **changes: Any) -> bytes:
        """What it answers to an ask."""
        return answer(200, encode_tell(TellMessage(**{"announcements": tuple(self.offers[-32:]), **changes})))

    @asynccontextmanager
    async def serving(
        self, *, hello: Hook | None = None, ask: Hook | None = None, blob: Hook | None = None,
        claim: tuple[str, ...] = (), call: bool = True,
    ) -> AsyncIterator[str]:  # fmt: skip
        """Listen, and be found by a hello that claims this address; each hook replaces an honest answer."""
        context = tls.server_context(self.identity, [tls.to_der(tls.certificate(self.scene.identity))])
        hooks = {"hello": hello, "ask": ask, "blob": blob}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    path = head.split(b" ", 2)[1].decode()
                    self.calls.append(path)
                    await reader.readexactly(_length(head))
                    kind = next(k for k in hooks if f"/{k}" in path)
                    hook = hooks[kind]
                    if callable(hook):
                        await hook(writer)
                    else:
                        writer.write(hook if hook is not None else self._honest(kind, path, head))
                    await writer.drain()
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
                pass  # it hung up, or the attack is over
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(serve, self.host, 0, ssl=context)
        address = f"{self.host}:{server.sockets[0].getsockname()[1]}"
        try:
            if call:
                said = await self.hello(addresses=(*claim, address))
                assert said.status == 200, said
            yield address
        finally:
            server.close()

    def _honest(self, kind: str, path: str, head: bytes) -> bytes:
        if kind == "hello":
            return answer(200, encode_hello(self.scene.hello(name=self.name)))
        if kind == "ask":
            return self.tell()
        blob = self.blobs.get(path[-64:])
        if blob is None:
            return answer(404)
        if b"Range: bytes=" not in head:
            return answer(200, blob)
        start = int(head.split(b"Range: bytes=")[1].split(b"-")[0])
        span = f"bytes {start}-{len(blob) - 1}/{len(blob)}"
        return answer(206, blob[start:], Content_Range=span)

    async def called(self, times: int = 1, kind: str = "/", seconds: float = 8.0) -> bool:
        """Whether the victim came so often, for such paths."""
        return await until(lambda: sum(kind in path for path in self.calls) >= times, seconds)

    async def told(self, text: str, seconds: float = 10.0) -> bool:
        """Whether the victim's line about it comes to hold `text`: a value, or a field that says something."""
        return await until(lambda: any(text in line for line in self.scene.shown(self.id)), seconds)


def _length(head: bytes) -> int:
    lower = head.lower()
    return int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length: " in lower else 0


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer off a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    return Answer(int(head.split()[1]), await reader.readexactly(_length(head)))
