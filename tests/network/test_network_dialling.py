"""Whom a lab dials, and what an answer may cost it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from braintorrent.errors import BadMessage, Unreachable
from braintorrent.network import limits, tls
from braintorrent.network.client import Client
from braintorrent.network.dialling import Dialling
from braintorrent.protocol.messages import AskMessage, TellMessage

ASK = AskMessage(None, {})


async def test_proxies_of_the_environment_are_not_used(labs, sink, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    a, b = labs
    async with b.serve() as server, a.call() as client:
        await client.hello(b.id, str(server.address), a.say())
        await client.fetch(b.id, str(server.address), b.put(b"bytes"), 5, sink)
        assert sink.data == b"bytes"


NOT_HERE = [
    "127.0.0.1:1", "[::1]:1", "localhost:1", "a.localhost:1", "[::ffff:127.0.0.1]:1", "169.254.169.254:80",
    "[fe80::1]:1", "224.0.0.251:1", "[ff02::fb]:1", "0.0.0.0:1", "[::]:1", "255.255.255.255:1", "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_HERE)
async def test_addresses_that_no_other_lab_can_have_are_not_dialled(labs, address):
    a, b = labs
    dialling = Dialling(lambda: False)
    assert not dialling.plausible(address)
    async with Client(a.identity, a.trusted, dialling=dialling) as client:
        with pytest.raises(Unreachable) as caught:
            await client.ask(b.id, address, ASK, 5)
        assert caught.value.reason == "address"


@pytest.mark.parametrize("address", ["192.0.2.7:1", "10.0.0.1:1", "[fd00::7]:1", "lab-a.example.org:47100"])
def test_others_are(address):
    assert Dialling(lambda: False).plausible(address)


async def test_a_name_that_resolves_to_this_machine_is_not_dialled_either(labs, sink, monkeypatch):
    a, b = labs
    async with b.serve() as server:
        address, loop = server.address, asyncio.get_running_loop()

        async def resolve(host, port, **options):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address.host, port))]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        here = True
        async with Client(a.identity, a.trusted, dialling=Dialling(lambda: here)) as client:
            await client.hello(b.id, f"lab.example:{address.port}", a.say())
            here = False
            name = f"other.example:{address.port}"
            for attempt in (
                client.identify(name),
                client.ask(b.id, name, ASK, 5),
                client.fetch(b.id, name, "0" * 64, 9, sink),
            ):
                with pytest.raises(Unreachable):
                    await attempt
        assert not b.asked


async def test_gossip_of_such_addresses_is_left_out(labs, lab):
    a, b = labs
    c = lab("c")
    b.tell = TellMessage(addresses={c.id: ("127.0.0.1:1", "192.0.2.7:1", "169.254.169.254:80")})
    async with b.serve() as server:
        here = True
        async with Client(a.identity, a.trusted, dialling=Dialling(lambda: here)) as client:
            await client.hello(b.id, str(server.address), a.say())
            here = False
            with pytest.raises(Unreachable):
                await client.ask(b.id, str(server.address), ASK, 5)
            here = True
            told = await client.ask(b.id, str(server.address), ASK, 5)
            assert told.addresses == {c.id: ("127.0.0.1:1", "192.0.2.7:1")}


async def test_unproven_addresses_are_tried_a_few_at_a_time(labs, monkeypatch):
    monkeypatch.setattr(limits, "DIALS", 3)
    a, b = labs
    async with b.serve() as server, a.call() as client:
        await client.hello(b.id, str(server.address), a.say())
        reasons = []
        for port in range(1, 6):
            with pytest.raises(Unreachable) as caught:
                await client.ask(b.id, f"127.0.0.1:{port}", ASK, 5)
            reasons.append(caught.value.reason)
        assert reasons == ["unreachable"] * 2 + ["address"] * 3
        await client.ask(b.id, str(server.address), ASK, 5)  # where it answered it is always called


@asynccontextmanager
async def answering(b, a, answer):
    """b, which answers a's first request with `answer`: (address, the requests)."""
    known, asked = tls.server_context(b.identity, [tls.to_der(tls.certificate(a.identity))]), []

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=known)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000, "head"),
        (b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 90 + b"X: " + b"y" * 60_000 + b"\r\n", "head"),
        (b"HTTP/1.1 302 X\r\nLocation: /v1/blobs/" + b"1" * 64 + b"\r\nContent-Length: 0\r\n\r\n", "302"),
    ],
)
async def test_a_download_reads_no_endless_head_and_follows_no_redirect(labs, sink, answer, complaint):
    a, b = labs
    async with answering(b, a, answer) as (address, asked), a.call() as client:
        with pytest.raises(BadMessage, match=complaint):
            await client.fetch(b.id, address, "0" * 64, 100, sink)
    assert len(asked) == 1
