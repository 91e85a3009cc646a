"""A running node parts with who leaves the roster, names who misbehaves, and gives up leftovers."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from braintorrent.errors import Gone, Unreachable
from braintorrent.network import limits
from braintorrent.network.client import Client
from braintorrent.node.fetching import fetch, give_up
from braintorrent.node.finding import nearby
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.roster import Member
from braintorrent.node.status import status
from braintorrent.node.trusting import untrust
from braintorrent.protocol import fetches
from braintorrent.protocol.effects import Fetch
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.records import Artifact, Identity
from braintorrent.records.content import CHUNK_BYTES, chunk_digests, content_digest


async def test_who_leaves_the_roster_loses_its_connections_in_both_directions(labs, until):
    a, b = labs("lab-a", "lab-b", discovery=False)
    async with asyncio.timeout(30), Node(a) as node, Node(b) as other:
        for one, two in ((node, other), (other, node)):
            one.context.machine.sighted(two.lab.me, two.listening, one.context.now)
            one.pump()
        callers, remotes = node.server._listener.callers, node.context.client._remotes
        await until(lambda: callers._of.get(b.me) and b.me in remotes)
        untrust(a.state, a.identity, "lab-b")
        await until(lambda: b.me not in a.roster.ids and not callers._of.get(b.me) and b.me not in remotes)
        await until(lambda: other.context.machine.contacts.of[a.me].problem.startswith("roster"))


async def test_what_is_only_of_a_former_member_goes_to_nobody_and_its_weights_go_also_after_the_end(labs, until):
    a, b, c = labs("lab-a", "lab-b", "lab-c", discovery=False, stop={"versions": 2})
    async with asyncio.timeout(40), Node(a) as node, Node(b) as other:
        for one, two in ((node, other), (other, node)):
            one.context.machine.sighted(two.lab.me, two.listening, one.context.now)
            one.pump()
        assert [await node.finished(), await other.finished()] == ["finished", "finished"]
        theirs, blobs = node.context.machine.table.entries[b.me].held, node.context.blobs
        own = node.context.machine.newest
        assert theirs.final
        async with Client(c.identity, lambda peer: True) as client:

            async def served(a_record, size):
                return await client.fetch_small(a.me, node.listening, a_record, size)

            assert await served(theirs.record, theirs.record_size)
            untrust(a.state, a.identity, "lab-b")
            await until(lambda: b.me not in a.roster.ids)
            with pytest.raises(Gone):
                await served(theirs.record, theirs.record_size)
            assert await served(own.record, own.record_size)
        await until(lambda: not blobs.has(theirs.content))
        assert blobs.has(theirs.record), "lineage goes on"
    async with asyncio.timeout(40), Node(Lab.open(a.folder)) as node:  # and so in the next life
        assert node.serving.blob(c.me, theirs.record) is None
        descriptor, _ = node.serving.blob(c.me, own.content)
        os.close(descriptor)
    c.state.close()


async def test_status_names_faults_and_the_ban_they_led_to(labs, monkeypatch):
    monkeypatch.setattr(limits, "FAULTS", 1)
    a, b = labs("lab-a", "lab-b", discovery=False)
    async with asyncio.timeout(30), Node(a) as node, Client(b.identity, lambda peer: True) as client:
        seen = []
        for path in ("/v1/tells", "/v1/blobs/..", "/v1/ask"):
            with pytest.raises((Gone, Unreachable)):
                async with client._exchange(a.me, node.listening, 5, "GET", path):
                    pass
            peer = status(node)["peers"][0]
            seen.append((peer["faults"], bool(peer["banned"])))
        assert seen == [({"path": 1}, False), ({"path": 2}, True), ({"path": 2}, True)]
        assert peer["banned"].startswith("path: ")
        assert "banned for" in peer["banned"]
    b.state.close()


async def test_who_announces_what_does_not_fit_again_and_again_is_banned(labs):
    a, b = labs("lab-a", "lab-b", discovery=False)
    async with asyncio.timeout(30), Node(a) as node:
        context, fits = node.context, a.learner.schema.digest
        for counter, (schema, size) in enumerate([("0" * 64, 14), (fits, 9), (fits, 14)] * 3, 1):
            small = context.blobs.put_bytes(b"no record, %3d" % counter)
            rubbish = Announcement(
                "testing-node", b.me, Version(1, counter), "1" * 64, 1, 1, 1.0, schema, small, size, False, b""
            )  # fmt: skip
            await fetch(context, Fetch(rubbish, a.me))
        assert context.conduct.faults(b.me) == {"unfit": counter}
        assert context.conduct.banned(b.me).startswith("unfit: ")
        assert context.conduct.faults(a.me) == {}, "who passes it on is not at fault"
    b.state.close()


async def test_what_was_begun_of_an_author_goes_when_it_announces_something_newer(labs):
    a, b = labs("lab-a", "lab-b", discovery=False)
    author = Identity.create().id
    async with asyncio.timeout(30), Node(a) as node:
        blobs, record = node.context.blobs, node.context.blobs.put_bytes(b"a record")
        held = blobs.put_bytes(b"kept for another reason")
        data = bytes(CHUNK_BYTES + 1)
        chunks = tuple(chunk_digests([data]))
        model = Artifact(
            kind="weights", codec="safetensors", size=len(data), digest=content_digest(chunks), chunks=chunks
        )
        incoming = await asyncio.to_thread(blobs.receive, model)
        incoming.write(memoryview(data)[:CHUNK_BYTES])
        incoming.abort()
        before = blobs.size()
        begun = Announcement(
            "testing-node", author, Version(1, 1), model.digest, 1, 1, 1.0, "0" * 64, record, 8, False, b""
        )  # fmt: skip
        node.context.unfinished[author] = begun
        give_up(node.context, author)
        assert not blobs.has(record)
        assert blobs.has(held)
        assert blobs.size() == before - CHUNK_BYTES - len(b"a record")
        assert author not in node.context.unfinished
        give_up(node.context, author)  # nothing is left to give up
    b.state.close()


async def test_a_slow_lab_gives_way_to_who_waits_and_is_fetched_from_all_the_same(labs, until, monkeypatch):
    monkeypatch.setattr(limits, "SLOW_SECONDS", 0.5)
    monkeypatch.setattr(limits, "SLOW_BYTES_PER_SECOND", 4 * limits.MIB)
    monkeypatch.setattr(fetches, "BEHIND", 0.5)
    timing = {"ask_every": 0.1, "alone_after": 0.3, "linger": 60.0}
    size, stop = 1_000_000, {"versions": 1}  # 4 MB
    a, slow, b = labs("lab-a", "slow", "lab-b", task={"size": size}, stop=stop, timing=timing, discovery=False)
    slow.peer = slow.peer.model_copy(update={"serve_mib_per_second": 0.5})

    def held(node, lab):
        entry = node.context.machine.table.entries.get(lab.me)
        return entry is not None and entry.held is not None

    def meet(node, other):
        node.context.machine.sighted(other.lab.me, other.listening, node.context.now)
        node.pump()

    async with asyncio.timeout(40), Node(a) as node, Node(slow) as first:
        machine = node.context.machine
        machine.fetches.policy = replace(machine.policy, max_fetches=1)
        meet(node, first)
        await until(lambda: slow.me in machine.fetches.flying)
        async with Node(b) as second:
            meet(node, second)
            await until(lambda: held(node, b))
            assert not held(node, slow), "it was being fetched first, and is not here yet"
            await until(lambda: held(node, slow))
    received = node.context.client.received[slow.me]
    assert received < 1.7 * 4 * size, "what had come was kept"


def test_labs_live_on_this_machine_where_its_people_say_so(labs):
    (away,) = labs("lab-a", listen="192.0.2.7:1", peers=["192.0.2.8:5"])
    (here,) = labs("lab-c", listen="192.0.2.7:1", peers=["localhost:5"])
    assert (nearby(away)(), nearby(here)()) == (False, True)
    away.roster.members["x" * 52] = Member(name="lab-x", addresses=("127.0.0.1:1",), vouched="y" * 52)
    assert not nearby(away)()  # another lab's word
    away.roster.members["x" * 52] = Member(name="lab-x", addresses=("127.0.0.1:1",))
    assert nearby(away)()
    away.state.close()
    here.state.close()
