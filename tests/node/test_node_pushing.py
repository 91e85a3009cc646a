"""A lab that can only dial out takes full part: two real nodes, one of which nobody can call."""

from __future__ import annotations

import asyncio

from braintorrent.errors import Unreachable
from braintorrent.node.node import Node
from braintorrent.node.status import status
from braintorrent.records.content import CHUNK_BYTES
from braintorrent.storage import Incoming

NOWHERE = "127.0.0.1:9"  # the discard port: nobody listens there


def met(hidden: Node, other: Node) -> None:
    """The hidden lab finds the other; the other knows of it only what it says of itself."""
    machine = hidden.context.machine
    machine.sighted(other.lab.me, other.listening, hidden.context.now)
    hidden.pump()


def partners(node: Node) -> set[str]:
    """Whose models went directly into merges of a node."""
    return {a for a, e in node.context.machine.table.entries.items() if e.merged.counter}


async def test_a_lab_that_nobody_can_call_merges_and_is_merged(labs, until, caplog):
    caplog.set_level("INFO")
    first, second = labs("hidden", "other", discovery=False, advertise=[NOWHERE], task={"size": 600_000})
    second.peer.advertise.clear()
    async with asyncio.timeout(60), Node(first) as hidden, Node(second) as other:
        met(hidden, other)
        await until(lambda: partners(hidden) == {second.me} and partners(other) == {first.me})
        contact = other.context.machine.contacts.of[first.me]
        assert contact.calls_only
        assert contact.addresses == (NOWHERE,)
        merged = other.context.machine.table.entries[first.me].merged
        await until(lambda: other.context.machine.table.entries[first.me].merged > merged)  # and again
        assert other.traffic.of(first.me)[0] > CHUNK_BYTES  # weights of more than one chunk
        assert status(other)["peers"][0]["faults"] == {}
        assert status(hidden)["peers"][0]["faults"] == {}
    assert "rror" not in caplog.text


async def test_labs_end_together_though_one_cannot_be_called(labs, until):
    first, second = labs("hidden", "other", discovery=False, advertise=[NOWHERE], stop={"versions": 3})
    second.peer.advertise.clear()
    async with asyncio.timeout(60), Node(first) as hidden, Node(second) as other:
        met(hidden, other)
        assert await asyncio.gather(hidden.finished(), other.finished()) == ["finished", "finished"]
        last = [node.context.machine.table.entries[lab.me].held for node, lab in ((hidden, second), (other, first))]
        assert [a.final for a in last] == [True, True]


async def test_a_push_that_breaks_goes_on_at_the_chunk_it_came_to(labs, monkeypatch):
    options = {"task": {"size": 900_000}, "stop": {"versions": 1}}
    first, second = labs("hidden", "other", discovery=False, advertise=[NOWHERE], **options)
    second.peer.advertise.clear()
    write, begins = Incoming.write, []  # (content, offset) of each block that reaches the other lab

    def breaks_once(incoming, data):
        if incoming._store is other.context.blobs and incoming._position == incoming.offset:
            begins.append((incoming.artifact.digest, incoming.offset))
            if len(begins) == 2:
                raise Unreachable("a cable was pulled")
        write(incoming, data)

    monkeypatch.setattr(Incoming, "write", breaks_once)
    async with asyncio.timeout(60), Node(first) as hidden, Node(second) as other:
        met(hidden, other)
        await asyncio.gather(hidden.finished(), other.finished())
        assert partners(other) == {first.me}
    content = begins[0][0]
    assert begins[:3] == [(content, 0), (content, CHUNK_BYTES), (content, CHUNK_BYTES)]


async def test_what_is_wanted_and_gone_by_then_is_passed_over(labs):
    first, second = labs("hidden", "other", discovery=False)
    async with asyncio.timeout(30), Node(first) as hidden, Node(second) as other:
        met(hidden, other)
        machine = hidden.context.machine
        machine.pushes.want(second.me, ("0" * 64, "1" * 64))
        (push,) = machine.pushes.start()
        await hidden._dispatch._push(push)
        machine.pushes.want(second.me, ("2" * 64,))
        assert [push.digests for push in machine.pushes.start()] == [("2" * 64,)]
