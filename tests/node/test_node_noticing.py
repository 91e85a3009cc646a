"""Word of labs goes round between running nodes: over others, by policy, and to its consequences."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import tomli_w

from braintorrent.errors import StorageFull
from braintorrent.node import noticing
from braintorrent.node.lab import Lab, ensure_identity
from braintorrent.node.members import asked, members, pick
from braintorrent.node.node import Node
from braintorrent.node.roster import Member, Roster
from braintorrent.node.rotating import rotate
from braintorrent.node.status import status
from braintorrent.node.trusting import introduce, revoke, untrust
from braintorrent.protocol.entry import Entry
from braintorrent.protocol.notices import Introduction
from braintorrent.records import Identity, digest, short, sign_announcement
from braintorrent.records.notice import prove
from braintorrent.storage import Ledger, StatePaths

FED = "testing-node"
STRANGER = Identity.create().id


def roster(folder):
    return Roster(StatePaths(folder).roster)


def part(folder, other):
    """The lab of one folder does not know the lab of the other."""
    untrust(StatePaths(folder), ensure_identity(folder), other.name)


def knobs(folder, **said):
    content = {
        "name": folder.name, "listen": "127.0.0.1:0", "timing": {"ask_every": 0.2, "alone_after": 0.5}, **said,
    }  # fmt: skip
    (folder / "peer.toml").write_text(tomli_w.dumps(content))


async def test_word_goes_down_a_chain_and_each_lab_does_as_it_likes(folders, run, until):
    """lab-a revokes lab-d, and introduces a newcomer. It does not speak with lab-c, which trusts it; lab-b does."""
    a, b, c, d = folders("lab-a", "lab-b", "lab-c", "lab-d")
    knobs(b, introductions="refuse", revocations="accept")
    knobs(c, introductions="accept")
    part(a, c)
    _, _, third = await run(a, b, c)
    me = ensure_identity(a)
    introduce(StatePaths(a), me, FED, STRANGER, Member(name="lab-new"))
    revoke(StatePaths(a), me, FED, "lab-d", "spoils what it sends")
    gone = ensure_identity(d).id
    await until(lambda: STRANGER in roster(c).ids and gone not in roster(b).ids)
    assert roster(c).members[STRANGER].vouched == me.id
    assert STRANGER not in roster(b).ids
    assert roster(b).revoked[gone].by == me.id
    assert gone in roster(c).ids, "lab-c asks a person"
    await until(lambda: status(third)["advice"])
    (advice,) = status(third)["advice"]
    assert (advice["kind"], advice["name"], advice["by"]) == ("revocation", "lab-d", "lab-a")
    seen = await asyncio.to_thread(members, c)
    assert [m["name"] for m in seen["waiting"]] == ["lab-d"]
    assert {m["name"]: m["vouched"] for m in seen["members"]}["lab-new"] == "lab-a"
    assert [m["name"] for m in seen["members"] if m["seen"]] == ["lab-b"]
    assert pick(c, "lab-d")[0].why == "spoils what it sends"


async def test_what_is_heard_while_the_disk_is_full_is_done_once_there_is_room(folders, run, until, monkeypatch):
    settle, room = noticing._settle, []

    def full(*arguments):
        if not room:
            raise StorageFull("no room")
        return settle(*arguments)

    monkeypatch.setattr(noticing, "_settle", full)
    a, b, _ = folders("lab-a", "lab-b", "lab-c")
    knobs(b, revocations="accept")
    gone = Roster(StatePaths(a).roster).named("lab-c")
    _, second = await run(a, b)
    second.context.machine.policy = replace(second.context.machine.policy, storage_retry=0.2)
    revoke(StatePaths(a), ensure_identity(a), FED, "lab-c", "spoils")
    await until(lambda: status(second)["notes"].get("disk") == "no room")
    await asyncio.sleep(0.5)
    assert gone <= roster(b).ids
    room.append(True)
    await until(lambda: not gone & roster(b).ids)


async def test_a_revoked_labs_models_are_dropped_and_no_longer_served(folders, run, until):
    a, b, c = folders("lab-a", "lab-b", "lab-c", stop={"versions": 2})
    nodes = await run(a, b, c)
    kept, theirs = nodes[0].context, nodes[1].lab.me
    for node in (nodes[0], nodes[2]):
        entries = node.context.machine.table.entries
        await until(lambda entries=entries: theirs in entries and entries[theirs].held is not None)
    await until(lambda: kept.activity.verb not in ("merging",))
    revoke(StatePaths(a), nodes[0].lab.identity, FED, "lab-b", "")
    await until(lambda: theirs not in kept.lab.roster.ids)
    await until(lambda: theirs not in kept.machine.table.entries)
    held = nodes[2].context.machine.table.entries[theirs].held
    assert held is not None, "lab-c was only advised"
    await until(lambda: nodes[0].serving.blob(nodes[2].lab.me, held.content) is None)
    await asyncio.sleep(1)
    assert theirs not in kept.machine.table.entries, "lab-c relays in vain"
    assert not nodes[0].serving.trusted(theirs)


async def test_two_labs_revoke_each_other_and_a_third_learns_with_both(folders, run, until):
    a, b, c = folders("lab-a", "lab-b", "lab-c")
    nodes = await run(a, b, c)
    revoke(StatePaths(a), nodes[0].lab.identity, FED, "lab-b", "they began")
    revoke(StatePaths(b), nodes[1].lab.identity, FED, "lab-a", "no, they did")
    third = nodes[2]
    await until(lambda: len(asked(c)) == 2)
    assert {(n.author, n.peer) for n in asked(c)} == {
        (nodes[0].lab.me, nodes[1].lab.me), (nodes[1].lab.me, nodes[0].lab.me)
    }  # fmt: skip
    assert roster(c).ids == {nodes[0].lab.me, nodes[1].lab.me}
    before = third.context.merges
    await until(lambda: third.context.merges > before + 1)


async def test_a_proof_goes_round_and_quarantines(folders, run, until):
    a, b, c = folders("lab-a", "lab-b", "lab-c")
    nodes = await run(a, b, c)
    liar, teller, third = nodes
    await until(lambda: liar.context.machine.newest is not None)
    newest = liar.context.machine.newest
    other = sign_announcement(liar.lab.identity, replace(newest, content=digest(b"another")))
    proof = prove(newest, other)
    teller.context.tell(lambda now: teller.context.machine.heard(proof, "nobody", now))
    life = newest.version.incarnation
    table = third.context.machine.table
    await until(lambda: life in table.entry(liar.lab.me).quarantined)
    with Ledger(third.lab.state.ledger, read_only=True) as ledger:
        kept = lambda: ledger.entries(third.lab.me).get(liar.lab.me, Entry())  # noqa: E731
        await until(lambda: life in kept().quarantined)
        await until(lambda: [raw for raw, _ in ledger.notices()])


async def test_those_who_trust_a_lab_follow_it_to_its_new_key(folders, run, until):
    a, b, c = folders("lab-a", "lab-b", "lab-c")
    async with Node(Lab.open(a)) as first:
        await until(lambda: first.context.machine.newest is not None)
    old, new = rotate(a)
    part(a, c)  # it tells lab-b itself, and lab-c hears of it there
    _, second, third = nodes = await run(a, b, c)
    for node in (second, third):
        await until(lambda node=node: new in node.lab.roster.ids)
        assert old not in node.lab.roster.ids
        assert node.lab.roster.members[new].name == "lab-a"
    assert roster(b).ids == {new, third.lab.me}
    await until(lambda: new in second.context.machine.table.entries)
    assert nodes[0].context.machine.newest.author == new


async def test_each_lab_reads_one_thing_of_a_revocation(folders, run, until, caplog):
    """lab-a revokes lab-c, which hears of it from lab-b, and goes on asking."""
    a, b, c = folders("lab-a", "lab-b", "lab-c")
    first, second, third = await run(a, b, c)
    revoke(StatePaths(a), first.lab.identity, FED, "lab-c", "spoils")
    row = lambda node, name: next(p for p in status(node)["peers"] if p["name"] == name)  # noqa: E731
    await until(lambda: row(third, "lab-a")["problem"] == "revoked by lab-a: spoils")
    assert status(third)["notes"]["revoked by lab-a"] == "spoils"
    await until(lambda: f"revoked {short(third.lab.me)}" in status(first)["notes"])
    notes = status(first)["notes"]
    assert notes[f"revoked {short(third.lab.me)}"] == "lab-c, revoked here, still asks"
    assert not [what for what in notes if what.startswith("stranger")]
    await until(lambda: status(second)["advice"])
    settle = f"to trust it no more: braintorrent trust --accept lab-c -C {b}; to keep it: --decline"
    assert status(second)["advice"][0]["settle"] == settle
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("lab-a revoked lab-c" in text and settle in text for text in warned)


async def test_who_is_introduced_is_no_stranger_any_more_and_is_not_told_of_itself(folders, run, until, caplog):
    """lab-c asks lab-b, which does not know it, until lab-a introduces it."""
    caplog.set_level(logging.INFO)
    a, b, c = folders("lab-a", "lab-b", "lab-c")
    part(b, c)
    first, second, third = await run(a, b, c)
    stranger = f"stranger {short(third.lab.me)}"
    await until(lambda: stranger in status(second)["notes"])
    assert f"-C {b}" in status(second)["notes"][stranger]
    introduce(StatePaths(a), first.lab.identity, FED, third.lab.me, Member(name="lab-c"))
    await until(lambda: status(second)["advice"])
    await until(lambda: any(isinstance(n, Introduction) for n in third.context.machine.notices))
    await asyncio.sleep(0.5)
    assert stranger not in status(second)["notes"]
    told = [r for r in caplog.records if "introduces lab-c" in r.getMessage()]
    assert len(told) == 1, "lab-c says nothing of its own introduction"
    assert told[0].levelno == logging.WARNING
    assert f"braintorrent trust --accept lab-c -C {b}" in told[0].getMessage()
