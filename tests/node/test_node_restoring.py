"""Coming back without a checkpoint: a lab killed after each publication trains on all its cases all the same."""

from __future__ import annotations

import asyncio

import numpy as np
import torch

from braintorrent.config import load_federation, load_peer
from braintorrent.errors import StorageFull
from braintorrent.learning.learner import TorchLearner
from braintorrent.methods import Method
from braintorrent.node import context
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.storage import StatePaths


class Line:
    """A contracts.Task with two weights, which notes the number of each batch."""

    score, samples, steps = "fit", 4, 3

    def __init__(self):
        self.batches = []

    def network(self, seed):
        torch.manual_seed(seed)
        return torch.nn.Linear(1, 1)

    def batch(self, seed, step):
        self.batches.append(step)
        return torch.from_numpy(np.random.default_rng([seed, step]).standard_normal((4, 1), np.float32))

    def loss(self, model, batch):
        return (model(batch) - 2 * batch).square().mean()

    def optimiser(self, parameters):
        return torch.optim.SGD(parameters, 0.1)

    def evaluate(self, model, part, *, arrays=False):
        return []

    def summary(self, predictions):
        return {}


async def test_batches_go_on_where_the_last_version_ended(folders):
    (folder,) = folders("lab-a", timing={"alone_after": 0.0, "linger": 0.1}, stop={"versions": 2}, discovery=False)
    federation = load_federation(folder.parent / "federation.toml")

    async def batches(versions):
        task, peer = Line(), load_peer(folder)
        peer = peer.model_copy(update={"stop": peer.stop.model_copy(update={"versions": versions})})
        lab = Lab.assemble(
            folder, folder, federation, peer, lambda *opened: TorchLearner(task, opened[3], 0, 7), folder
        )
        async with asyncio.timeout(30), Node(lab) as node:
            await node.finished()
        StatePaths(folder).checkpoint.unlink(missing_ok=True)  # as after a kill
        return task.batches

    assert await batches(2) == [0, 1, 2, 3, 4, 5]
    assert await batches(3) == [6, 7, 8]


class PersonalBias(Method):
    def role(self, name, role):
        return "personal" if name == "bias" else role


async def test_what_never_leaves_the_lab_outlives_a_kill_after_a_publication(folders, monkeypatch):
    (folder,) = folders("lab-a", timing={"alone_after": 0.0, "linger": 0.1}, discovery=False)
    federation = load_federation(folder.parent / "federation.toml")

    async def bias(versions):
        """Before a life until so many versions, and after it."""
        peer = load_peer(folder)
        peer = peer.model_copy(update={"stop": peer.stop.model_copy(update={"versions": versions})})
        lab = Lab.assemble(
            folder, folder, federation, peer, lambda *_: TorchLearner(Line(), PersonalBias(), 0, 7), folder
        )
        async with asyncio.timeout(30), Node(lab) as node:
            begun = lab.learner.state()["personal.bias"]
            await node.finished()
        assert node.context.machine.counter == versions
        return begun, lab.learner.state()["personal.bias"]

    fresh, first = await bias(1)
    assert fresh != first
    with monkeypatch.context() as patch:
        patch.setattr(context, "save_checkpoint", full)
        begun, second = await bias(2)
    assert begun == first != second
    begun, _ = await bias(3)
    assert begun == first, "of the last time that there was room"


def full(*arguments):
    raise StorageFull("no room")
