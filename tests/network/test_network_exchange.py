"""A whole exchange over real TLS sockets: hello, ask, blobs with resume; restarts; a clean end."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import time
import tracemalloc

import psutil
import pytest

from braintorrent.errors import BusyError, ConfigError, Gone, Refused, StorageFull, Unreachable
from braintorrent.network import limits, streaming
from braintorrent.protocol.messages import Announcement, AskMessage, TellMessage
from braintorrent.protocol.version import Version
from braintorrent.records import sign_announcement

ASK = AskMessage(None, {})


def announced(lab, counter=1):
    d = "ab" * 32
    statement = Announcement("test-federation", lab.id, Version(7, counter), d, 20, 12, 3.5, d, d, 300, False)
    return sign_announcement(lab.identity, statement)


async def test_hello_ask_and_a_blob(pair, sink):
    async with pair() as (a, b, client, address):
        assert await client.identify(address) == b.id
        assert await client.hello(b.id, address, a.say()) == b.say()
        b.tell = TellMessage((announced(b),), "final", True, {a.id: ("127.0.0.1:1", "[::1]:2")}, ("cd" * 32,))
        ask = AskMessage(announced(a, 3), {b.id: Version(7, 0), a.id: Version(7, 3)}, (1, 4), "seeking")
        told = await client.ask(b.id, address, ask, 5)
        assert told == b.tell
        assert told.announcements[0].raw == b.tell.announcements[0].raw
        assert b.asked == [ask]
        content = os.urandom(5 * limits.MIB + 17)
        await client.fetch(b.id, address, b.put(content), len(content), sink)
        assert sink.data == content
        assert await client.fetch_small(b.id, address, b.put(b"record"), 100) == b"record"


@pytest.mark.parametrize("nowait", [streaming.NOWAIT, None], ids=["where the system tells", "where it cannot"])
async def test_a_blob_comes_from_memory_as_from_a_cold_disk(pair, sink, monkeypatch, nowait):
    monkeypatch.setattr(streaming, "NOWAIT", nowait)
    async with pair() as (_, b, client, address):
        content = os.urandom(3 * limits.MIB + 17)
        blob = b.put(content)
        if sys.platform == "linux":
            with (b.folder / blob).open("rb+") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), limits.MIB, limits.MIB, os.POSIX_FADV_DONTNEED)  # a block is cold
        await client.fetch(b.id, address, blob, len(content), sink)
        assert sink.data == content


@pytest.mark.skipif(streaming.NOWAIT is None, reason="this system does not tell what it has in memory")
def test_what_is_in_memory_is_known_without_waiting(tmp_path):
    path, block = tmp_path / "blob", memoryview(bytearray(1000))
    path.write_bytes(bytes(range(250)) * 5)
    with path.open("rb") as file:
        assert streaming.in_memory(file.fileno(), block, 1100) == 150
        assert bytes(block[:150]) == bytes(range(100, 250))
        assert streaming.in_memory(file.fileno(), block, 1250) == 0


async def test_an_ask_is_answered_in_the_protocol_agreed_on_and_declined_in_another(pair):
    async with pair() as (a, b, client, address):
        await client.hello(b.id, address, a.say())
        b.spoken, b.tell = 2, TellMessage((announced(b),))
        assert await client.ask(b.id, address, ASK, 5, protocol=2) == b.tell
        with pytest.raises(Refused, match="of protocol 1, where 2 was due") as error:
            await client.ask(b.id, address, ASK, 5, protocol=1)
        assert error.value.reason == "protocol"
        assert b.asked == [ASK]


async def test_bytes_are_counted_by_peer_on_both_sides(labs, sink):
    a, b = labs
    content = os.urandom(100_000)
    async with b.serve() as server, a.call() as client:
        await client.fetch(b.id, str(server.address), b.put(content), len(content), sink)
        await client.hello(b.id, str(server.address), a.say())
        assert client.received == server_side(server.sent, b.id)
        assert client.sent == server_side(server.received, b.id)
        assert client.received[b.id] > len(content)


def server_side(counter, peer):
    assert len(counter) == 1
    return {peer: next(iter(counter.values()))}


@pytest.mark.parametrize("offset", [1, 1_000_000, 2_499_999])
async def test_a_fetch_resumes_where_it_stopped(pair, sink, offset):
    content = os.urandom(2_500_000)
    async with pair() as (_, b, client, address):
        await client.fetch(b.id, address, b.put(content), len(content), sink, offset)
        assert sink.data == content[offset:]


async def test_nothing_left_to_fetch_asks_for_nothing(pair, sink):
    async with pair() as (_, b, client, address):
        await client.fetch(b.id, address, "0" * 64, 10, sink, 10)
        assert not sink.data


async def test_a_blob_that_is_not_there_is_gone(pair, sink):
    async with pair() as (_, b, client, address):
        with pytest.raises(Gone):
            await client.fetch(b.id, address, "0" * 64, 10, sink)
        with pytest.raises(Gone):
            await client.fetch_small(b.id, address, "0" * 64, 10)


@pytest.mark.parametrize("fault", [StorageFull("no room"), OSError("broken disk"), ValueError("chunk")])
async def test_what_a_sink_raises_reaches_the_caller(pair, fault):
    class Broken:
        def write(self, data):
            raise fault

    content = os.urandom(3 * limits.MIB)
    async with pair() as (_, b, client, address):
        with pytest.raises(type(fault), match=str(fault)):
            await client.fetch(b.id, address, b.put(content), len(content), Broken())


async def test_many_first_contacts_at_once_introduce_once(labs):
    a, b = labs
    b.greeted.add(a.id)
    async with b.serve() as server, a.call() as client:
        told = await asyncio.gather(*(client.ask(b.id, str(server.address), ASK, 10) for _ in range(20)))
        assert told == [b.tell] * 20
        assert client._remotes[b.id].introductions == 1


async def test_a_restarted_peer_is_met_again(labs):
    a, b = labs
    async with a.call() as client:
        async with b.serve() as server:
            address = server.address
            await client.hello(b.id, str(address), a.say())
            await client.ask(b.id, str(address), ASK, 5)
        with pytest.raises(Unreachable):
            await client.ask(b.id, str(address), ASK, 5)
        b.greeted.clear()
        async with b.serve(str(address)):
            with pytest.raises(Refused) as caught:
                await client.ask(b.id, str(address), ASK, 5)
            assert caught.value.reason == "hello"
            await client.hello(b.id, str(address), a.say())
            assert await client.ask(b.id, str(address), ASK, 5) == b.tell


async def test_a_fetch_introduces_itself_to_a_peer_that_forgot_it(labs, sink):
    a, b = labs
    content = os.urandom(1000)
    async with a.call() as client:
        async with b.serve() as server:
            address = str(server.address)
            await client.hello(b.id, address, a.say())
        async with b.serve(address):
            await client.fetch(b.id, address, b.put(content), len(content), sink)
            assert sink.data == content
            assert client._remotes[b.id].introductions == 2


async def test_two_peers_call_each_other(labs):
    a, b = labs
    async with a.serve() as at_a, b.serve() as at_b, a.call() as from_a, b.call() as from_b:
        answers = await asyncio.gather(
            from_a.hello(b.id, str(at_b.address), a.say()), from_b.hello(a.id, str(at_a.address), b.say())
        )
        assert answers == [b.say(), a.say()]


@pytest.mark.parametrize(
    ("listen", "dial"), [("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1")]
)
async def test_listens_on_ipv4_and_ipv6(labs, listen, dial):
    if "[" in listen and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    a, b = labs
    async with b.serve(listen) as server, a.call() as client:
        assert await client.identify(f"{dial}:{server.address.port}") == b.id


async def test_a_port_in_use_is_named(labs):
    a, b = labs
    async with b.serve() as server:
        with pytest.raises(BusyError, match=str(server.address.port)):
            await a.serve(str(server.address)).__aenter__()
    with pytest.raises(ConfigError, match="host:port"):
        await a.serve("nonsense").__aenter__()


async def test_closing_refuses_what_is_new_and_finishes_what_runs(labs):
    a, b = labs
    content = os.urandom(40 * limits.MIB)
    blob, begun, go_on = b.put(content), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow:
        got = 0

        def write(self, data):
            if not self.got:
                loop.call_soon_threadsafe(begun.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
            self.got += len(data)

    async with b.serve() as server, a.call() as client:
        address, slow = str(server.address), Slow()
        await client.hello(b.id, address, a.say())
        fetching = asyncio.create_task(client.fetch(b.id, address, blob, len(content), slow))
        await begun.wait()
        closing = asyncio.create_task(server.close(20))
        await asyncio.sleep(0.05)
        with pytest.raises(Unreachable) as caught:
            await client.ask(b.id, address, ASK, 5)
        assert caught.value.reason == "closing"
        go_on.set()
        await fetching
        assert slow.got == len(content)
        await closing
        await server.close()


async def test_closing_waits_for_nobody_who_comes_while_others_go(labs):
    a, b = labs
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    async with b.serve() as server, a.call() as client:
        address = str(server.address)
        await client.hello(b.id, address, a.say())
        tcp = await asyncio.to_thread(socket.create_connection, server.address)
        silent = await asyncio.to_thread(anyone.wrap_socket, tcp)  # it will read no farewell
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(server.close(20))
        await asyncio.sleep(0.05)
        with pytest.raises(Unreachable):
            await client.ask(b.id, address, ASK, 5)
        assert not closing.done()
        silent.close()
        async with asyncio.timeout(3):
            await closing


async def test_closing_does_not_wait_for_a_stuck_reader_beyond_the_deadline(labs):
    a, b = labs
    content = os.urandom(40 * limits.MIB)
    begun, release, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    class Stuck:
        def write(self, data):
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    async with b.serve() as server, a.call() as client:
        fetching = asyncio.create_task(client.fetch(b.id, str(server.address), b.put(content), len(content), Stuck()))
        await begun.wait()
        async with asyncio.timeout(3):
            await server.close(0.2)
        release.set()
        with pytest.raises(Unreachable):
            await fetching


async def test_nothing_is_left_behind(labs, sink):
    a, b = labs
    content = os.urandom(3 * limits.MIB)
    blob = b.put(content)

    async def once():
        async with b.serve() as server, a.call() as client:
            address = str(server.address)
            await client.hello(b.id, address, a.say())
            await client.fetch(b.id, address, blob, len(content), sink)
            dangling = asyncio.create_task(client.fetch(b.id, address, blob, len(content), sink))
            _, half_open = await asyncio.open_connection(*server.address)  # never speaks TLS
            await asyncio.sleep(0.01)
            dangling.cancel()
            await asyncio.gather(dangling, return_exceptions=True)
        half_open.close()
        await asyncio.sleep(0.05)

    process = psutil.Process()
    await once()  # whatever is opened once and for all
    before = process.num_fds(), process.num_threads(), len(asyncio.all_tasks())
    for _ in range(3):
        await once()
    assert (process.num_fds(), process.num_threads(), len(asyncio.all_tasks())) == before


@pytest.mark.parametrize("size", [1, 100, limits.BLOCK - 1, limits.BLOCK, limits.BLOCK + 1, 9 * limits.BLOCK])
async def test_blobs_of_every_size_arrive_whole_at_a_slow_sink(pair, size):
    class Slow:
        data = b""

        def write(self, data):
            time.sleep(0.01)
            assert len(data) <= limits.BLOCK
            self.data += data

    content = os.urandom(size)
    async with pair() as (_, b, client, address):
        slow = Slow()
        await client.fetch(b.id, address, b.put(content), size, slow)
        assert slow.data == content
        assert client.received[b.id] == size


async def test_what_waits_for_a_slow_disk_is_bounded(pair):
    class Slow:
        def write(self, data):
            time.sleep(0.005)

    async with pair() as (a, b, client, address):
        await client.hello(b.id, address, a.say())
        blob = b.put(bytes(64 * limits.MIB))
        tracemalloc.start()
        await client.fetch(b.id, address, blob, 64 * limits.MIB, Slow())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * limits.MIB  # the blocks of the fetch, and what the server has in flight


async def test_a_cancelled_fetch_gives_the_sink_back(pair):
    begun, loop = asyncio.Event(), asyncio.get_running_loop()

    class Watched:
        inside = False

        def write(self, data):
            self.inside = True
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.2)
            self.inside = False

    async with pair() as (_, b, client, address):
        watched = Watched()
        blob = b.put(bytes(20 * limits.MIB))
        fetching = asyncio.create_task(client.fetch(b.id, address, blob, 20 * limits.MIB, watched))
        await begun.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert not watched.inside


async def test_a_stalled_fetch_ends_and_resumes(labs, sink, monkeypatch):
    """The server stops in mid-blob; what came by then is kept, and the rest follows."""
    a, b = labs
    content = os.urandom(5 * limits.MIB)
    blob, read, blocks = b.put(content), os.preadv, []

    def hesitant(*arguments):
        blocks.append(arguments)
        time.sleep(1 if len(blocks) == 3 else 0)
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", hesitant)
    monkeypatch.setattr(streaming, "NOWAIT", None)  # nothing is in memory
    monkeypatch.setattr(limits, "BYTES_PER_SECOND", 5 * limits.MIB)
    async with b.serve() as server, a.call() as client:
        with pytest.raises(Unreachable, match="in time"):
            await client.fetch(b.id, str(server.address), blob, len(content), sink)
        assert len(sink.data) == 2 * limits.MIB
        await client.fetch(b.id, str(server.address), blob, len(content), sink, len(sink.data))
        assert sink.data == content
