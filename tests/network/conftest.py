"""Two peers on loopback: real keys, real TLS sockets, and handlers that hold blobs in a folder."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from braintorrent.errors import Refused
from braintorrent.network.client import Client
from braintorrent.network.server import Server
from braintorrent.network.wire import PROTOCOL, Hello
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import Identity, digest


@dataclass
class Lab:
    """One peer: its key, its roster, its blobs, and what it answers."""

    folder: Path
    name: str = "lab"
    identity: Identity = field(default_factory=Identity.create)
    roster: set[str] = field(default_factory=set)
    greeted: set[str] = field(default_factory=set)
    tell: TellMessage = field(default_factory=TellMessage)
    asked: list[AskMessage] = field(default_factory=list)
    spoken: int = PROTOCOL

    @property
    def id(self) -> str:
        return self.identity.id

    def trust(self, *others: Lab) -> Lab:
        self.roster.update(other.id for other in others)
        return self

    def put(self, data: bytes) -> str:
        (self.folder / digest(data)).write_bytes(data)
        return digest(data)

    def say(self) -> Hello:
        return Hello(self.name, "test-federation", agreement={"task.kind": "0" * 16}, clock_ms=1, addresses=("a:1",))

    # What braintorrent.network.server.Handlers asks for.

    def trusted(self, peer: str) -> bool:
        return peer in self.roster

    def hello(self, caller: str, hello: Hello) -> Hello:
        if hello.federation != "test-federation":
            raise Refused(f"federation {hello.federation} is not test-federation", reason="federation")
        self.greeted.add(caller)
        return self.say()

    def protocol(self, caller: str) -> int:
        return self.spoken

    def ask(self, caller: str, ask: AskMessage) -> TellMessage:
        if caller not in self.greeted:
            raise Refused("no hello came first", reason="hello")
        self.asked.append(ask)
        return self.tell

    def blob(self, caller: str, digest: str) -> tuple[int, int] | None:
        try:
            descriptor = os.open(self.folder / digest, os.O_RDONLY)
        except FileNotFoundError:
            return None
        return descriptor, os.fstat(descriptor).st_size

    def serve(self, listen: str = "127.0.0.1:0") -> Server:
        return Server(self.identity, self, listen)

    def call(self) -> Client:
        return Client(self.identity, self.trusted)


class Collect:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: memoryview) -> None:
        self.data += data


@pytest.fixture
def lab(tmp_path):
    """Makes a Lab with a name and a folder of its own."""

    def make(name: str) -> Lab:
        (tmp_path / name).mkdir()
        return Lab(tmp_path / name, name)

    return make


@pytest.fixture
def labs(lab):
    """a and b, which trust each other."""
    a, b = lab("a"), lab("b")
    a.trust(b)
    b.trust(a)
    return a, b


@pytest.fixture
def sink():
    """A fresh sink."""
    return Collect()


@pytest.fixture
def pair(labs):
    """`async with pair() as (a, b, client of a, address of b)`."""

    @asynccontextmanager
    async def opened():
        a, b = labs
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(b.serve())
            client = await stack.enter_async_context(a.call())
            yield a, b, client, str(server.address)

    return opened
