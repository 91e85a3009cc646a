"""What a caller may cost: strangers before and after TLS, members that flood, dawdle or send rubbish."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from braintorrent.errors import BadMessage, Unreachable
from braintorrent.network import limits, tls
from braintorrent.network.callers import Callers
from braintorrent.network.client import Client
from braintorrent.network.conduct import Conduct
from braintorrent.network.server import Server
from braintorrent.network.wire import decode_error
from braintorrent.protocol.messages import AskMessage
from braintorrent.protocol.policy import Policy

ASK = AskMessage(None, {})
FLOOD = 300  # connections, more than all caps


@asynccontextmanager
async def serving(labs, **options):
    """b serves and knows a's certificate: (server, address, mutual context of a, anonymous context)."""
    a, b = labs
    remote, mine = (tls.to_der(tls.certificate(lab.identity)) for lab in (b, a))
    async with Server(b.identity, b, "127.0.0.1:0", [mine], **options) as server:
        yield server, server.address, tls.client_context(a.identity, remote), tls.client_context(None, remote)


async def connect(address, context=None, **options):
    """An open connection, with TLS if there is a context."""
    tls_options = {"ssl": context, "server_hostname": ""} if context else {}
    return await asyncio.open_connection(*address, **tls_options, **options)


async def ends(reader, within=2.0):
    """All that still comes; TimeoutError if the connection stays open."""
    try:
        return await asyncio.wait_for(reader.read(), within)
    except ConnectionError:
        return b""


def head(method="GET", path="/v1/blobs/" + "0" * 64, length=0):
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


# ------------------------------------------------------------- strangers


async def test_half_open_connections_by_the_hundred_keep_nobody_out(labs):
    a, b = labs
    async with serving(labs) as (server, address, *_), a.call() as client, AsyncExitStack() as stack:
        for _ in range(FLOOD):
            _, writer = await connect(address)
            stack.callback(writer.transport.abort)
        before = time.monotonic()
        await client.hello(b.id, str(address), a.say())
        assert time.monotonic() - before < 1
        assert len(server._listener.callers) <= limits.STRANGERS + 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
async def test_a_burst_from_many_addresses_does_not_push_out_who_came_in_its_midst(labs):
    async with serving(labs) as (_, address, _, anonymous), AsyncExitStack() as stack:

        def crowd(net: int) -> None:
            for host in range(limits.STRANGERS):
                plain = stack.enter_context(socket.socket())
                plain.bind((f"127.66.{net}.{host + 1}", 0))
                plain.connect(address)

        def shake_hands() -> None:
            with socket.create_connection(address, timeout=5) as plain, anonymous.wrap_socket(plain):
                pass

        crowd(0)  # from here on this thread holds up the server, so that all wait to be accepted
        honest = asyncio.create_task(asyncio.to_thread(shake_hands))
        asyncio.get_running_loop().call_soon(lambda: (time.sleep(0.5), crowd(1)))
        await honest


async def test_handshakes_that_end_nowhere_keep_nobody_out(labs):
    a, b = labs
    async with serving(labs) as (server, address, _, anonymous), a.call() as client, AsyncExitStack() as stack:
        for _ in range(limits.STRANGERS_PER_ADDRESS + 5):
            _, writer = await connect(address, anonymous)
            stack.callback(writer.transport.abort)
        await client.hello(b.id, str(address), a.say())
        assert len(server._listener.callers) <= limits.STRANGERS_PER_ADDRESS + 2


async def test_one_address_does_not_push_out_another(labs, monkeypatch):
    monkeypatch.setattr(limits, "STRANGERS_PER_ADDRESS", 2)
    async with serving(labs) as (_, address, *_), AsyncExitStack() as stack:
        reader, writer = await connect(address)
        stack.callback(writer.transport.abort)
        crowd = [await connect(address, local_addr=("127.0.0.2", 0)) for _ in range(4)]
        for _, w in crowd:
            stack.callback(w.transport.abort)
        assert [await ends(r) for r, _ in crowd[:2]] == [b"", b""]
        with pytest.raises(TimeoutError):
            await ends(reader, 0.1)


async def test_a_full_house_has_room_for_one_more_and_keeps_what_is_in_use(labs, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 3)
    a, _ = labs
    async with serving(labs) as (server, address, mutual, _), AsyncExitStack() as stack:
        members = [await connect(address, mutual) for _ in range(3)]
        members[0][1].write(head("POST", "/v1/ask", 10))  # under way: its body is not here yet
        callers = server._listener.callers
        await asyncio.sleep(0.2)
        assert [caller.busy() for caller in callers._of[a.id]] == [True, False, False]
        crowd = [await connect(address) for _ in range(4)]
        for _, writer in [*members, *crowd]:
            stack.callback(writer.transport.abort)
        assert [await ends(reader) for reader, _ in (*members[1:], *crowd[:2])] == [b""] * 4
        assert len(callers) == 3
        members[0][1].write(b"x" * 10)
        assert b" 400 " in await asyncio.wait_for(members[0][0].readline(), 2)


@pytest.mark.parametrize(("keys", "each"), [(16, 16), (64, 4), (256, 1)])
def test_no_keys_fill_the_house_by_idle_connections(keys, each):
    callers, gone = Callers(), []

    def come(peer):
        caller = callers.admit(f"10.0.{peer % 8}.{peer // 8}", lambda: gone.append(peer))
        if caller is not None:
            callers.know(caller, f"lab {peer}")
        return caller

    for peer in range(keys):
        for _ in range(each):
            come(peer)
    assert len(callers) == limits.CONNECTIONS
    assert not gone
    honest = [come(1000 + i) for i in range(20)]
    assert None not in honest
    assert len(callers) == limits.CONNECTIONS
    assert not [peer for peer in gone if peer >= 1000], "who has most makes room, not who has one"
    assert max(gone.count(peer) for peer in gone) <= 1 + 20 // keys


def test_who_has_one_connection_in_use_keeps_it(monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    callers = Callers()
    for peer in "ab":
        caller = callers.admit(f"10.0.0.{ord(peer)}", lambda: None)
        callers.know(caller, peer)
        caller.busy = lambda: True
    assert callers.admit("10.0.1.1", lambda: None) is None


async def test_a_caller_without_a_key_gets_one_request(labs):
    async with serving(labs) as (_, address, _, anonymous):
        reader, writer = await connect(address, anonymous)
        writer.write(head() * 3)
        assert (await ends(reader)).count(b"HTTP/1.1") == 1


async def test_a_caller_without_a_key_is_cut_off_whatever_it_does(labs, monkeypatch):
    monkeypatch.setattr(limits, "STRANGER_SECONDS", 0.3)
    async with serving(labs) as (_, address, _, anonymous):
        reader, writer = await connect(address, anonymous)
        started = time.monotonic()
        writer.write(head("POST", "/v1/hello", 300))
        dripping = asyncio.create_task(drip(writer, bytes(300)))
        assert await ends(reader) == b""
        assert time.monotonic() - started < 1
        dripping.cancel()


def test_addresses_of_one_ipv6_network_count_as_one(monkeypatch):
    monkeypatch.setattr(limits, "STRANGERS_PER_ADDRESS", 1)
    callers, dropped = Callers(), []
    for host in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"):
        callers.admit(host, lambda host=host: dropped.append(host))
    assert dropped == ["2001:db8::1"]


# ------------------------------------------------------------- members


async def drip(writer, data, pause=0.02):
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(pause)


async def test_a_head_must_arrive_whole_the_first_time_and_later(labs, monkeypatch):
    monkeypatch.setattr(limits, "HEAD_SECONDS", 1.0)  # a busy machine must not be taken for a slow sender
    a, _ = labs
    async with serving(labs) as (server, address, mutual, _):
        for earlier in (b"", head()):
            reader, writer = await connect(address, mutual)
            writer.write(earlier)
            dripping = asyncio.create_task(drip(writer, b"GET /" + b"x" * 500))
            answered = await ends(reader)
            assert answered.count(b"HTTP/1.1 404") == bool(earlier)
            dripping.cancel()
        assert server.conduct.faults(a.id) == {"slow": 2}


async def test_one_peer_has_so_many_connections(labs, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS_PER_PEER", 2)
    async with serving(labs) as (server, address, mutual, _), AsyncExitStack() as stack:
        crowd = [await connect(address, mutual) for _ in range(3)]
        for _, writer in crowd:
            stack.callback(writer.transport.abort)
        assert await ends(crowd[0][0]) == b""
        assert len(server._listener.callers) == 2


async def test_disconnect_ends_what_is_idle_and_what_is_under_way(labs):
    a, b = labs
    content = os.urandom(30 * limits.MIB)
    async with serving(labs) as (server, address, mutual, _), a.call() as client:
        reader, _ = await connect(address, mutual)

        class Parting:
            def write(self, data):
                loop.call_soon_threadsafe(server.disconnect, a.id)

        loop = asyncio.get_running_loop()
        with pytest.raises(Unreachable):
            await client.fetch(b.id, str(address), b.put(content), len(content), Parting())
        assert await ends(reader) == b""
        assert len(server._listener.callers) == 0


async def test_who_is_forgotten_is_not_downloaded_from(labs):
    a, b = labs
    content = os.urandom(30 * limits.MIB)
    async with serving(labs) as (_, address, *_), a.call() as client:

        class Forgetting:
            def write(self, data):
                asyncio.run_coroutine_threadsafe(client.forget(b.id), loop)
                time.sleep(0.05)

        loop = asyncio.get_running_loop()
        with pytest.raises(Unreachable):
            await client.fetch(b.id, str(address), b.put(content), len(content), Forgetting())
        assert not client._remotes
        await client.forget(b.id)


async def test_requests_beyond_the_burst_wait(labs, monkeypatch):
    monkeypatch.setattr(limits, "REQUESTS", 2)
    a, b = labs
    async with serving(labs) as (server, address, *_), a.call() as client:
        started = time.monotonic()
        await client.hello(b.id, str(address), a.say())
        for _ in range(5):
            await client.ask(b.id, str(address), ASK, 5)
        assert time.monotonic() - started > 4 / limits.REQUESTS_PER_SECOND * 0.9
        assert not server.conduct.faults(a.id)


async def test_a_flood_is_declined_named_and_ends_in_a_ban(labs, monkeypatch):
    monkeypatch.setattr(limits, "REQUESTS", 1)
    monkeypatch.setattr(limits, "REQUESTS_PER_SECOND", 0.1)  # however slowly this machine connects
    monkeypatch.setattr(limits, "REQUEST_WAIT", 0.0)
    monkeypatch.setattr(limits, "FAULTS", 2)
    a, _ = labs
    async with serving(labs) as (server, address, mutual, _):
        answers = []
        for _ in range(5):
            reader, writer = await connect(address, mutual)
            writer.write(head())
            answers.append(decode_error((await first(reader))[1])[0])
            writer.close()
        assert answers == ["gone", "flood", "flood", "flood", "banned"]
        assert server.conduct.faults(a.id) == {"flood": 3}
        assert "flood" in server.conduct.banned(a.id)


async def first(reader):
    """Status and body of the next answer."""
    lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).lower()
    length = int(lines.split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(lines.split()[1]), await reader.readexactly(length)


async def test_rubbish_bans_with_its_reason_and_the_ban_passes(labs, monkeypatch):
    monkeypatch.setattr(limits, "FAULTS", 1)
    monkeypatch.setattr(limits, "BAN_SECONDS", 0.4)
    monkeypatch.setattr(limits, "FAULT_SECONDS", 0.3)
    a, b = labs
    async with serving(labs) as (server, address, mutual, _), a.call() as client:
        reader, writer = await connect(address, mutual)
        for status in (400, 400, 429):
            writer.write(head("POST", "/v1/ask", 3) + b"bad")
            assert (await first(reader))[0] == status
        assert await ends(reader) == b""  # a ban ends the connection
        with pytest.raises(Unreachable, match=r"bad-message.*banned for") as caught:
            await client.hello(b.id, str(address), a.say())
        assert caught.value.reason == "banned"
        await asyncio.sleep(0.5)
        await client.hello(b.id, str(address), a.say())
        assert server.conduct.banned(a.id) is None


async def test_who_sends_bad_bytes_is_not_called_for_a_while(labs, monkeypatch):
    monkeypatch.setattr(limits, "FAULTS", 1)
    a, b = labs
    conduct = Conduct()
    (b.folder / ("0" * 64)).write_bytes(b"other bytes")
    async with serving(labs) as (server, address, *_), Client(a.identity, a.trusted, conduct=conduct) as client:
        for _ in range(2):
            with pytest.raises(BadMessage):
                await client.fetch_small(b.id, str(address), "0" * 64, 100)
        before = server.sent.total()
        with pytest.raises(Unreachable, match="digest") as caught:
            await client.fetch_small(b.id, str(address), "0" * 64, 100)
        assert caught.value.reason == "banned"
        assert server.sent.total() == before
        assert conduct.faults(b.id) == {"digest": 2}


def test_bans_grow_are_forgotten_after_good_conduct_and_name_the_reason(monkeypatch):
    monkeypatch.setattr(limits, "FAULTS", 2)
    now = 0.0
    conduct = Conduct(lambda: now)
    conduct.offend("p", "bad-bytes: chunk 1\x1b[2J")
    conduct.offend("p", "bad-bytes: chunk 2")
    assert conduct.banned("p") is None
    conduct.offend("p", "bad-bytes: chunk 3")
    assert conduct.banned("p") == "bad-bytes: chunk 3; banned for 30 s more"
    conduct.offend("p", "flood: while banned")
    now = limits.BAN_SECONDS
    assert conduct.banned("p") is None
    conduct.offend("p", "flood: again")
    assert "60 s" in conduct.banned("p")
    for _ in range(20):
        now += limits.BAN_SECONDS_MOST
        conduct.offend("p", "flood: again")
        conduct.offend("p", "flood: again")
        conduct.offend("p", "flood: again")
    assert f"{limits.BAN_SECONDS_MOST:.0f} s" in conduct.banned("p")
    now += 3 * limits.BAN_SECONDS_MOST
    for _ in range(3):
        conduct.offend("p", "slow: now")
    assert "30 s" in conduct.banned("p")
    assert conduct.faults("p").keys() == {"bad-bytes", "flood", "slow"}
    assert conduct.banned("other") is None
    conduct.forget("p")
    assert conduct.banned("p") is None


async def test_blob_bytes_are_served_at_the_rate_set(labs, sink):
    a, b = labs
    content = os.urandom(3 * limits.MIB)
    async with serving(labs, bytes_per_second=4 * limits.MIB) as (_, address, *_), a.call() as client:
        started = time.monotonic()
        await client.fetch(b.id, str(address), b.put(content), len(content), sink)
        assert sink.data == content
        assert time.monotonic() - started > 0.2


async def test_tls_sessions_are_not_resumed(labs):
    async with serving(labs) as (_, address, mutual, _):

        def visit(session):
            with socket.create_connection(address) as plain, mutual.wrap_socket(plain, session=session) as connection:
                connection.sendall(head())
                assert connection.recv(1000)
                return connection.session, connection.session_reused

        session, _ = await asyncio.to_thread(visit, None)
        assert not session.has_ticket
        assert (await asyncio.to_thread(visit, session))[1] is False


def test_whoever_gives_up_what_it_fetches_and_begins_anew_is_not_too_much_for_one_peer() -> None:
    assert 2 * Policy().max_fetches <= limits.STREAMS_PER_PEER
