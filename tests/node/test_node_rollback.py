"""A merge that does worse on own validation cases is undone where the lab asks for it, and held against nobody."""

from __future__ import annotations

import asyncio

import pytest

from braintorrent.errors import ConfigError
from braintorrent.node.keeping import told
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.status import status
from braintorrent.storage import Ledger


class Unjudged:
    """A lab's learner without validation cases."""

    def __init__(self, learner) -> None:
        self._learner = learner

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def evaluate(self):
        return {}


class Counted:
    """A learner that notes which weights it evaluated."""

    def __init__(self, learner) -> None:
        self._learner, self.evaluated = learner, []

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def evaluate(self):
        self.evaluated.append(self._learner.weights().digest)
        return self._learner.evaluate()


def merges(lab):
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        return ledger.merges(), ledger.entries(lab.me), ledger.metrics()


async def test_a_worse_merge_is_undone_recorded_and_held_against_nobody(labs):
    # Stand-in labs have optima of their own: for who is near its own, every merge is worse.
    proud, other = labs("proud", "other", task={"steps": 30, "rate": 0.5}, rollback=True, stop={"versions": 3})
    proud.learner = Counted(proud.learner)
    async with asyncio.timeout(60), Node(proud) as node, Node(other):
        await node.finished()
        said = status(node)
    with Ledger(proud.state.ledger, read_only=True) as ledger:
        assert all(found.whole for found in ledger.proved())
    found, entries, measured = merges(proud)
    undone = [merged for _, merged in found if other.me in merged.skipped]
    assert undone
    for merged in undone:
        assert merged.skipped[other.me].reason == "worse"
        assert merged.skipped[other.me].norm > 0
        assert {author: part.weight for author, part in merged.included.items()} == {proud.me: 1.0}
    assert found[-1][1].last, "the last one too"
    assert not entries[other.me].refused
    assert not entries[other.me].merged.counter
    scores = [m.value for m in measured if m.stage == "undone"]
    assert len(scores) == len(undone)
    assert max(scores) < min(m.value for m in measured if m.stage == "own")
    assert "was undone: score 0." in said["notes"]["rollback"]
    assert said["merges"] == 0
    own, merged = (told(proud.state.models, name) for name in ("own", "merged"))
    assert merged["content"] == own["content"], "it ends with its own model"
    assert merged["stage"] == "own"
    evaluated = proud.learner.evaluated
    assert len(evaluated) == len(set(evaluated)), "no model is evaluated twice"
    assert len(evaluated) == 1 + 3 + len(undone)


async def test_a_newcomer_that_adopts_never_goes_back(folders, until):
    first, second = folders("old", "new", task={"steps": 30, "rate": 0.5}, rollback=True)
    toml = first / "peer.toml"
    toml.write_text(toml.read_text().replace("alone_after = 3.0", "alone_after = 0.0"))
    old, new = Lab.open(first), Lab.open(second)
    async with asyncio.timeout(30), Node(old) as node:
        await until(lambda: status(node)["versions"] >= 1)
        async with Node(new) as newcomer:
            await until(lambda: status(newcomer)["merges"])
            assert status(newcomer)["last_merge"]["adopt"]
            assert old.me in status(newcomer)["last_merge"]["included"]


async def test_the_same_version_that_was_worse_waits_and_training_goes_on(labs, until):
    proud, other = labs("proud", "other", task={"steps": 30, "rate": 0.5, "seconds": 0.0}, rollback=True)
    async with asyncio.timeout(30), Node(proud) as node:
        async with Node(other) as peer:
            await until(lambda: node.context.machine.table.entry(other.me).worse.counter)
            peer.stop()
            await peer.finished()
        await asyncio.sleep(0.5)  # what was under way is merged
        versions = status(node)["versions"]
        await until(lambda: status(node)["versions"] >= versions + 3)
        with Ledger(proud.state.ledger, read_only=True) as ledger:
            after = [m for version, m in ledger.merges() if version is not None and version.counter > versions + 1]
        assert after == [], "nobody has anything newer"


async def test_a_lab_without_validation_cases_cannot_judge(labs):
    (lab,) = labs("lab-a", rollback=True)
    lab.learner = Unjudged(lab.learner)
    with pytest.raises(ConfigError, match=r"peer\.toml: rollback: lab-a has no validation cases that give a score"):
        async with Node(lab):
            pass
    Lab.open(lab.folder).state.close()  # the folder is free again


async def test_a_lab_without_validation_cases_is_told_once(labs, caplog, until):
    (lab,) = labs("lab-a", timing={"alone_after": 0.0})
    lab.learner = Unjudged(lab.learner)
    async with asyncio.timeout(20), Node(lab) as node:
        await until(lambda: status(node)["versions"] >= 3)
        assert "no validation cases" in status(node)["notes"]["validation"]
    assert sum("no validation cases" in record.getMessage() for record in caplog.records) == 1
    assert told(lab.state.models, "latest")
    assert not told(lab.state.models, "best")
