"""Gates in a running node: who is refused is named with the word of the gate, and weighs nothing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tomli_w

from braintorrent.errors import ConfigError
from braintorrent.experiments.processes import introduce
from braintorrent.learning.gating import RECENT, SEEN
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.status import status
from braintorrent.storage import Ledger

TIMING = {"ask_every": 0.1, "alone_after": 1.0, "linger": 5.0}


class Liar:
    """A lab's learner that publishes `lie` of its model, after so many honest versions."""

    def __init__(self, learner, lie, honest=0, samples=None) -> None:
        self._learner, self._lie, self._honest = learner, lie, honest
        self.samples = samples or learner.samples
        self.versions = 0

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def weights(self):
        told = self._learner.weights().copy()
        if self.versions > self._honest:
            values = told.view("parameters")
            values[:] = self._lie(values)
        return told

    def load(self, weights) -> None:
        """It cares for nobody else's."""

    def train(self, halt, progress):
        self.versions += 1
        return self._learner.train(halt, progress)


@pytest.fixture
def opened(tmp_path):
    """opened({"name": "krum"}, "lab-a", "lab-b", gates={...}): labs of the stand-in task with that method."""

    def make(method, *names, **peer):
        task = {"kind": "standin", "size": 200, "steps": 5, "seconds": 0.1, "rate": 0.3}
        federation = {"format": 1, "id": "testing-gates", "task": task, "method": method}
        (tmp_path / "federation.toml").write_text(tomli_w.dumps(federation))
        folders = [tmp_path / name for name in names]
        for folder in folders:
            folder.mkdir()
            content = {"name": folder.name, "listen": "127.0.0.1:0", "timing": TIMING, **peer}
            (folder / "peer.toml").write_text(tomli_w.dumps(content))
        introduce(folders)
        return [Lab.open(folder) for folder in folders]

    return make


PLAIN = {"name": "braintorrent"}


def refusals(node, lab):
    peers = {peer["id"]: peer for peer in status(node)["peers"]}
    return set(peers[lab.me]["refused"].values())


@pytest.mark.parametrize(("method", "peer", "words"), [
    ({"name": "krum", "options": {"byzantine": 2}}, {"timing": {"max_merge": 6}},
     r"peer\.toml: timing\.max_merge: 6 is too few for method krum, which needs 7 others"),
    ({"name": "coordinate_median"}, {"gates": {"max_share": 0.5}},
     r"peer\.toml: gates\.max_share: method coordinate_median counts all labs alike"),
])  # fmt: skip
def test_what_can_never_work_is_refused_at_start(opened, method, peer, words):
    with pytest.raises(ConfigError, match=words):
        opened(method, "lab-a", **peer)


async def test_a_model_that_does_badly_here_is_refused_and_its_author_named(opened, until):
    honest, liar = opened(PLAIN, "honest", "liar", gates={"gate": "validation", "drop": 0.3})
    liar.learner = Liar(liar.learner, lambda x: 20 - 3 * x)
    async with asyncio.timeout(30), Node(honest) as node, Node(liar):
        await until(lambda: refusals(node, liar) == {"validation"})
        versions = status(node)["versions"]
        await until(lambda: status(node)["versions"] >= versions + 2)
        assert status(node)["merges"] == 0
        assert status(node)["metrics"]["own"]["score"] > 0.9, "alone it ends at its own optimum"
    with Ledger(honest.state.ledger, read_only=True) as ledger:
        assert all(liar.me not in merged.included for _, merged in ledger.merges())


async def test_an_update_that_is_suddenly_a_thousand_times_larger_is_refused(opened, until):
    honest, liar = opened(PLAIN, "honest", "liar", timing={**TIMING, "quorum": 1, "patience": 2.0})
    liar.learner = Liar(liar.learner, lambda x: 1000 * x, honest=8)
    async with asyncio.timeout(30), Node(honest) as node, Node(liar):
        await until(lambda: refusals(node, liar) == {"norm"})
        assert status(node)["merges"] >= 5, "as many were seen before"
        assert np.abs(honest.learner.weights().view("parameters")).max() < 10
    with Ledger(honest.state.ledger, read_only=True) as ledger:
        norms = [m.included[liar.me].norm for _, m in ledger.merges() if liar.me in m.included]
    again = Lab.open(honest.folder)
    async with Node(again) as node:
        usual = min(np.median(norms[:SEEN]), np.median(norms[-RECENT:]))
        assert node.context.gates.bounds.norm == pytest.approx(10 * usual), "known after a restart"


async def test_inflated_samples_weigh_no_more_than_the_largest_share(opened, until):
    honest, liar = opened(PLAIN, "honest", "liar", gates={"max_share": 0.4})
    liar.learner = Liar(liar.learner, lambda x: x, samples=10**6)
    async with asyncio.timeout(30), Node(honest) as node, Node(liar):
        await until(lambda: liar.me in status(node)["last_merge"].get("included", {}))
        weights = {a: part["weight"] for a, part in status(node)["last_merge"]["included"].items()}
    assert weights == pytest.approx({honest.me: 0.6, liar.me: 0.4})


async def test_a_median_is_of_everyone_held_and_bears_a_liar(opened, until):
    *honest, liar = labs = opened({"name": "coordinate_median"}, "a", "b", "c", "liar", gates={"norm": 0.0})
    liar.learner = Liar(liar.learner, lambda x: -1e6 * x)
    async with asyncio.timeout(60), Node(labs[0]) as node, Node(labs[1]), Node(labs[2]), Node(liar):
        everyone = {lab.me for lab in labs}
        await until(lambda: set(status(node)["last_merge"].get("included", {})) == everyone)
        merges = status(node)["merges"]
        await until(lambda: status(node)["merges"] >= merges + 3)
        assert set(status(node)["last_merge"]["included"]) == everyone, "what was merged before is merged again"
        assert np.abs(honest[0].learner.weights().view("parameters")).max() < 10
    with Ledger(honest[0].state.ledger, read_only=True) as ledger:
        skipped = {part.reason for _, merged in ledger.merges() for part in merged.skipped.values()}
    assert skipped <= {"too-few"}
