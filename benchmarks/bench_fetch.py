"""How much of a bare TLS 1.3 socket's throughput a fetch keeps: receive, verify, store, fsync.

Both sides send the same 100 MB from another process over mutual TLS on loopback. The bare side is
`recv_into` of 1 MiB into one buffer; the other goes through Server, Client and BlobStore, from the request
to the durable blob. The two take turns, so that whatever else the machine does weighs on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from braintorrent.errors import BadMessage
from braintorrent.network.client import Client
from braintorrent.network.server import Server
from braintorrent.network.tls import certificate, client_context, server_context, to_der
from braintorrent.network.wire import PROTOCOL, Hello
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import Artifact, Identity
from braintorrent.storage.blobs import BlobStore

SIZE = 100_000_000  # bytes
BLOCK = 1 << 20


class Sender:
    """Answers blob requests from a store; nothing else is asked of it here."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store

    def trusted(self, peer: str) -> bool:
        return True

    def follow(self, rotation: bytes) -> None:
        raise BadMessage("nobody changes keys here", reason="record")

    async def join(self, body: bytes) -> bytes:
        raise BadMessage("nobody joins here", reason="proof")

    def hello(self, caller: str, hello: Hello) -> Hello:
        return hello

    def protocol(self, caller: str) -> int:
        return PROTOCOL

    def ask(self, caller: str, ask: AskMessage) -> TellMessage:
        return TellMessage()

    def blob(self, caller: str, digest: str) -> tuple[int, int] | None:
        return self.store.open(digest)


def key(folder: Path, name: str) -> Identity:
    return Identity.load(folder / f"{name}.pem")


def send_bare(folder: Path, digest: str) -> None:
    """One connection; the whole blob for each byte received."""
    context = server_context(key(folder, "sender"), [to_der(certificate(key(folder, "receiver")))])
    data = memoryview((folder / "sent" / digest).read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            while connection.recv(1):
                connection.sendall(data)


async def send_blobs(folder: Path, digest: str) -> None:
    """A whole Server, until killed."""
    handlers = Sender(BlobStore(folder / "sent", 10 * SIZE))
    async with Server(key(folder, "sender"), handlers, "127.0.0.1:0") as server:
        print(server.address.port, flush=True)
        await asyncio.Event().wait()


def bare_receiver(folder: Path, port: int, stack: ExitStack) -> Callable[[], float]:
    context = client_context(key(folder, "receiver"), to_der(certificate(key(folder, "sender"))))
    plain = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    connection = stack.enter_context(context.wrap_socket(plain))
    buffer = memoryview(bytearray(BLOCK))

    def receive() -> float:
        started, left = time.perf_counter(), SIZE
        connection.send(b"x")
        while left:
            left -= connection.recv_into(buffer[: min(BLOCK, left)])
        return time.perf_counter() - started

    return receive


async def fetch(client: Client, peer: str, address: str, store: BlobStore, artifact: Artifact) -> float:
    """Seconds from the request until the blob is durable."""
    started = time.perf_counter()
    incoming = await asyncio.to_thread(store.receive, artifact)
    await client.fetch(peer, address, artifact.digest, artifact.size, incoming, incoming.offset)
    await asyncio.to_thread(incoming.commit)
    seconds = time.perf_counter() - started
    store.remove(artifact.digest)
    return seconds


def start_sender(stack: ExitStack, *arguments: str) -> int:
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    stack.enter_context(process.stdout)
    return int(process.stdout.readline())


async def compare(folder: Path, repeats: int) -> dict[str, float]:
    for name in ("sender", "receiver"):
        Identity.create().save(folder / f"{name}.pem")
    artifact = BlobStore(folder / "sent", 10 * SIZE).put([os.urandom(SIZE)])
    store, peer = BlobStore(folder / "received", 10 * SIZE), key(folder, "sender").id
    bare, fetched = [], []
    with ExitStack() as stack:
        ports = [start_sender(stack, what, str(folder), artifact.digest) for what in ("bare", "blobs")]
        receive = bare_receiver(folder, ports[0], stack)
        async with Client(key(folder, "receiver"), lambda peer: True) as client:
            for _ in range(1 + repeats):
                bare.append(receive())
                fetched.append(await fetch(client, peer, f"127.0.0.1:{ports[1]}", store, artifact))
    bare_s, fetch_s = (statistics.median(seconds[1:]) for seconds in (bare, fetched))  # the first one warms up
    return {
        "fetch_over_tls_socket": bare_s / fetch_s,
        "bare_mb_per_s": SIZE / bare_s / 1e6,
        "fetch_mb_per_s": SIZE / fetch_s / 1e6,
    }


def measure(repeats: int = 9) -> dict[str, float]:
    """fetch_over_tls_socket: throughput of a durable fetch over a bare TLS socket's, medians of `repeats`."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(compare(Path(folder), repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", nargs="?", choices=["bare", "blobs"], help="internal: a sending process")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("digest", nargs="?")
    options = parser.parse_args()
    if options.role == "bare":
        send_bare(options.folder, options.digest)
    elif options.role == "blobs":
        asyncio.run(send_blobs(options.folder, options.digest))
    else:
        print(json.dumps(measure(), indent=2))


if __name__ == "__main__":
    main()
