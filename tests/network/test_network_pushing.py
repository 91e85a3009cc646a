"""Blobs that come by PUT: only what was asked of that very peer, of that size, verified, once, and not too slowly."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager

import pytest

from braintorrent.errors import BadMessage, Refused, StorageFull, Unreachable
from braintorrent.network import limits
from braintorrent.network.receiving import Inbox
from braintorrent.network.server import Server
from braintorrent.records import Artifact
from braintorrent.records.content import chunk_digests, content_digest
from braintorrent.storage import BlobStore

CONTENT = os.urandom(2 * limits.MIB + 17)
SIZE = len(CONTENT)
BLOB = content_digest(chunk_digests([CONTENT]))


@pytest.fixture(autouse=True)
def short_linger(monkeypatch):
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.2)


@asynccontextmanager
async def receiving(labs):
    """a calls b, which has an inbox: (a, b, inbox, client of a, address of b, server)."""
    a, b = labs
    inbox = Inbox()
    async with Server(b.identity, b, "127.0.0.1:0", inbox=inbox) as server, a.call() as client:
        yield a, b, inbox, client, str(server.address), server


def written(lab, data):
    """An open file with these bytes."""
    path = lab.folder / "sent"
    path.write_bytes(data)
    return open(path, "rb", buffering=0)


def expecting(inbox, peer, sink, size=SIZE, seconds=5.0):
    """Ask `peer` for the blob, and wait for it beside what follows."""
    inbox.expect(peer, [BLOB])
    return asyncio.create_task(inbox.take(peer, BLOB, size, sink, seconds))


async def test_what_was_asked_for_arrives_and_is_counted_on_both_sides(labs, sink):
    async with receiving(labs) as (a, b, inbox, client, address, server):
        await client.hello(b.id, address, a.say())
        before = client.sent[b.id]
        waiting = expecting(inbox, a.id, sink)
        with written(a, CONTENT) as file:
            await client.push(b.id, address, BLOB, file)
        await waiting
        assert sink.data == CONTENT
        assert client.sent[b.id] == server.received[a.id] == before + len(CONTENT)


async def test_a_small_blob_is_taken_whole_and_its_digest_looked_at(labs):
    async with receiving(labs) as (a, b, inbox, client, address, _):
        for data, fits in ((CONTENT[:1000], True), (CONTENT[1:1001], False)):
            blob = content_digest(chunk_digests([CONTENT[:1000]]))
            inbox.expect(a.id, [blob])
            waiting = asyncio.create_task(inbox.take_small(a.id, blob, 1000, 5.0))
            with written(a, data) as file:
                if fits:
                    await client.push(b.id, address, blob, file)
                    assert await waiting == data
                else:
                    with pytest.raises(Refused, match="other bytes"):
                        await client.push(b.id, address, blob, file)
                    with pytest.raises(BadMessage) as caught:
                        await waiting
                    assert caught.value.reason == "digest"


async def test_what_comes_before_its_size_is_known_waits_for_that(labs, sink):
    async with receiving(labs) as (a, b, inbox, client, address, _):
        inbox.expect(a.id, [BLOB])
        with written(a, CONTENT) as file:
            pushing = asyncio.create_task(client.push(b.id, address, BLOB, file))
            await asyncio.sleep(0.2)
            await inbox.take(a.id, BLOB, len(CONTENT), sink, 5.0)
            await pushing
        assert sink.data == CONTENT


async def test_a_read_for_an_attempt_that_broke_off_takes_nothing_from_the_next(labs, sink, monkeypatch):
    """The first attempt breaks since b does not know a's certificate; its read ends amid those of the second."""
    read, places, second = os.pread, [], threading.Event()

    def late(descriptor, size, start):
        places.append(start)
        if len(places) == 1:
            assert second.wait(5.0)
        data = read(descriptor, size, start)
        if len(places) == 2:
            second.set()
        return data

    monkeypatch.setattr(os, "pread", late)
    async with receiving(labs) as (a, b, inbox, client, address, _):
        waiting = expecting(inbox, a.id, sink)
        with written(a, CONTENT) as file:
            await client.push(b.id, address, BLOB, file)
        await waiting
    assert places[:4] == [0, 0, limits.BLOCK, 2 * limits.BLOCK]
    assert sink.data == CONTENT


@pytest.mark.parametrize("case", ["not asked for", "asked of another", "twice", "no longer waited for"])
async def test_what_was_not_asked_for_is_declined(labs, lab, sink, case):
    async with receiving(labs) as (a, b, inbox, client, address, server):
        with written(a, CONTENT) as file:
            if case == "twice":
                waiting = expecting(inbox, a.id, sink)
                await client.push(b.id, address, BLOB, file)
                await waiting
            elif case == "asked of another":
                waiting = expecting(inbox, lab("c").id, sink, seconds=0.5)
            elif case == "no longer waited for":
                with pytest.raises(Unreachable, match="did not send"):
                    await expecting(inbox, a.id, sink, seconds=0.05)
            before = bytes(sink.data)
            with pytest.raises(Refused) as caught:
                await client.push(b.id, address, BLOB, file)
            assert caught.value.reason == "unwanted"
            assert sink.data == before
            assert not server.conduct.faults(a.id)  # it may only have been late
            if case == "asked of another":
                with pytest.raises(Unreachable):
                    await waiting
        assert not inbox._expected


@pytest.mark.parametrize("change", [-1, 1, limits.MIB])
async def test_another_size_than_the_record_says_is_a_fault_before_a_byte_is_written(labs, sink, change):
    async with receiving(labs) as (a, b, inbox, client, address, server):
        waiting = expecting(inbox, a.id, sink, size=len(CONTENT) - change)
        with written(a, CONTENT) as file, pytest.raises((Refused, Unreachable)):
            await client.push(b.id, address, BLOB, file)
        with pytest.raises(BadMessage, match="were due"):
            await waiting
        assert not sink.data
        assert server.conduct.faults(a.id) == {"size": 1}


async def test_wrong_bytes_are_found_at_their_chunk_and_what_was_right_is_kept(labs, tmp_path):
    store = BlobStore(tmp_path / "blobs", 1 << 30)
    chunks = tuple(chunk_digests([CONTENT]))
    artifact = Artifact(kind="weights", codec="safetensors", size=len(CONTENT), digest=BLOB, chunks=chunks)
    incoming = store.receive(artifact)
    async with receiving(labs) as (a, b, inbox, client, address, server):
        waiting = expecting(inbox, a.id, incoming)
        with written(a, CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])) as file, pytest.raises((Refused, Unreachable)):
            await client.push(b.id, address, BLOB, file)
        with pytest.raises(BadMessage) as caught:
            await waiting
        assert caught.value.reason == "bad-bytes"
        assert server.conduct.faults(a.id) == {"bad-bytes": 1}
        assert incoming.offset == 2 * limits.MIB
    incoming.abort()


async def test_a_sender_that_stalls_is_given_up_and_one_that_dies_too(labs, sink, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_SECOND", 4 * limits.MIB)  # a quarter of a second for a block
    async with receiving(labs) as (a, b, inbox, client, address, _):
        await client.hello(b.id, address, a.say())
        session, headers = client._remotes[b.id]._session, {"Content-Length": str(len(CONTENT))}

        async def drips():
            yield CONTENT[: limits.MIB + 5]
            await asyncio.sleep(5)

        waiting = expecting(inbox, a.id, sink)
        async with session.put(f"https://{address}/v1/blobs/{BLOB}", data=drips(), headers=headers) as response:
            assert response.status == 408
        with pytest.raises(Unreachable, match="more than"):
            await waiting
        assert sink.data == CONTENT[: limits.MIB]
        waiting = expecting(inbox, a.id, sink)
        pushing = asyncio.create_task(session.put(f"https://{address}/v1/blobs/{BLOB}", data=drips(), headers=headers))
        await asyncio.sleep(0.1)
        await client.forget(b.id)
        with pytest.raises(Unreachable):
            await waiting
        await asyncio.gather(pushing, return_exceptions=True)


async def test_a_full_disk_is_nobodys_fault_and_reaches_whoever_waits(labs):
    class Full:
        def write(self, data):
            raise StorageFull("no room")

    async with receiving(labs) as (a, b, inbox, client, address, server):
        waiting = expecting(inbox, a.id, Full())
        with written(a, CONTENT) as file, pytest.raises(Unreachable):
            await client.push(b.id, address, BLOB, file)
        with pytest.raises(StorageFull):
            await waiting
        assert not server.conduct.faults(a.id)


async def test_a_receiver_that_stops_reading_does_not_hold_the_sender(labs, monkeypatch):
    monkeypatch.setattr(limits, "BYTES_PER_SECOND", 4 * limits.MIB)
    released, data = threading.Event(), bytes(24 * limits.MIB)

    class Stuck:
        def write(self, data):
            released.wait(10)

    async with receiving(labs) as (a, b, inbox, client, address, _):
        waiting = expecting(inbox, a.id, Stuck(), size=len(data))
        begun = asyncio.get_running_loop().time()
        with written(a, data) as file, pytest.raises(Unreachable):
            await client.push(b.id, address, BLOB, file)
        assert asyncio.get_running_loop().time() - begun < 4
        released.set()
        with pytest.raises(Unreachable):
            await waiting


async def test_who_waits_no_longer_has_the_sink_to_itself_at_once_and_the_rest_is_refused(labs, monkeypatch):
    begun, may, written_, trouble = threading.Event(), threading.Event(), [], []

    class Slow:
        def write(self, data):
            begun.set()
            may.wait(10)
            written_.append(len(data))

    async def sending(client, *arguments):
        try:
            await client.push(*arguments)
        except Refused as error:
            trouble.append(error.reason)

    async with receiving(labs) as (a, b, inbox, client, address, server):
        waiting = expecting(inbox, a.id, Slow())
        with written(a, CONTENT) as file:
            push = asyncio.create_task(sending(client, b.id, address, BLOB, file))
            await asyncio.to_thread(begun.wait, 10)
            waiting.cancel()
            await asyncio.sleep(0.1)
            assert not waiting.done(), "a thread is in the sink"
            may.set()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert written_ == [limits.MIB]
            await push
        assert trouble == ["unwanted"]
        assert written_ == [limits.MIB], "nothing came after"
        assert not server.conduct.faults(a.id)


async def test_a_push_keeps_to_the_pace_it_is_given(labs, sink):
    async with receiving(labs) as (a, b, inbox, client, address, _):
        told = []
        waiting, begun = expecting(inbox, a.id, sink), asyncio.get_running_loop().time()
        with written(a, CONTENT) as file:
            await client.push(b.id, address, BLOB, file, lambda peer, size: told.append((peer, size)) or 0.1)
        assert asyncio.get_running_loop().time() - begun > 0.2
        assert told[-3:] == [(b.id, limits.MIB), (b.id, limits.MIB), (b.id, 17)]
        await waiting
