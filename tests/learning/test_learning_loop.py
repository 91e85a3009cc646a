"""A researcher's own loop as a Learner: kinds and dtypes come back as they went, and what is wrong is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from braintorrent.errors import ConfigError, Diverged
from braintorrent.learning import Learner
from braintorrent.learning.loop import LoopLearner
from braintorrent.methods import Method

ROLE = Method().role


class Loop:
    """Whatever `mapping` says; trains by adding one."""

    samples = 3

    def __init__(self, **mapping):
        self.mapping, self.loaded, self.loss = mapping, None, None

    def weights(self):
        return self.mapping

    def load(self, weights):
        self.loaded = weights

    def train(self):
        return self.loss

    def evaluate(self):
        return {"score": np.float32(0.5)}


EVERY_KIND = {
    "module.weight": torch.arange(6.0).reshape(2, 3).t(),  # not contiguous
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "batches": torch.tensor(7),
    "double": np.linspace(0, 1, 5),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "flag": np.array(True),
}


def test_every_kind_comes_back_as_it_went_and_as_a_copy():
    loop = Loop(**EVERY_KIND)
    learner = LoopLearner(loop, ROLE)
    assert isinstance(learner, Learner)
    there = learner.weights().copy()
    learner.load(there)
    assert loop.loaded.keys() == EVERY_KIND.keys()
    for name, value in EVERY_KIND.items():
        back = loop.loaded[name]
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        assert isinstance(back, np.ndarray) == isinstance(value, np.ndarray)
        assert (back == value).all()
    loop.loaded["module.weight"].zero_()
    loop.loaded["double"][:] = 9.0
    assert learner.weights().digest == there.digest


def test_what_was_merged_is_what_the_loop_gets():
    learner = LoopLearner(loop := Loop(w=torch.zeros(2, 2), n=np.zeros(3)), ROLE)
    other = learner.weights().copy()
    other.view("w")[:], other.view("n")[:] = [[1, 2], [3, 4]], 5
    learner.load(other)
    assert loop.loaded["w"].tolist() == [[1, 2], [3, 4]]
    assert loop.loaded["n"].tolist() == [5, 5, 5]


def test_personal_tensors_stay():
    learner = LoopLearner(
        loop := Loop(body=np.zeros(2), head=np.ones(2)), lambda name, role: "personal" if name == "head" else role
    )
    assert list(learner.schema.slots) == ["body"]
    learner.load(learner.weights().copy())
    assert loop.loaded["head"] is loop.mapping["head"]


@pytest.mark.parametrize(
    ("said", "loss", "steps"),
    [(None, math.nan, 1), (0.25, 0.25, 1), ({"loss": torch.tensor(2.0), "steps": 40}, 2.0, 40)],
)
def test_what_train_may_say(said, loss, steps):
    learner = LoopLearner(loop := Loop(w=np.zeros(1)), ROLE)
    loop.loss = said
    trained = learner.train(lambda: False, lambda step, steps: None)
    assert (trained.steps, trained.complete) == (steps, True)
    assert trained.loss == pytest.approx(loss, nan_ok=True)
    assert not learner.train(lambda: True, lambda step, steps: None).complete


def test_a_loss_that_is_not_finite_is_told():
    learner = LoopLearner(loop := Loop(w=np.zeros(1)), ROLE)
    loop.loss = math.inf
    with pytest.raises(Diverged, match=r"Loop.train\(\) gave loss inf"):
        learner.train(lambda: False, lambda step, steps: None)


def test_state_of_its_own_goes_into_checkpoints():
    class Remembering(Loop):
        def state(self):
            return {"momentum": torch.ones(2), "epoch": 3}

        def restore(self, state):
            self.back = state

    learner = LoopLearner(loop := Remembering(w=np.zeros(1)), ROLE)
    learner.restore(learner.state())
    assert loop.back["momentum"].tolist() == [1, 1]
    assert loop.back["epoch"] == 3
    assert LoopLearner(Loop(w=np.zeros(1)), ROLE).state() == {}


def lacking(**gone):
    return type("Mine", (Loop,), gone)(w=np.zeros(1))


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (
            object(),
            "object is no learner yet, it lacks: weights(), load(), train(), evaluate(), samples, a whole number",
        ),
        (lacking(train=None), "Mine is no learner yet, it lacks: train()"),
        (lacking(samples=2.5), "Mine is no learner yet, it lacks: samples, a whole number of training cases"),
        (lacking(state=lambda self: {}), "Mine is no learner yet, it lacks: restore()"),
        (Loop(), "Loop.weights() has nothing that travels"),
        (Loop(w=[1.0]), "Loop.weights(): w is a list; torch tensors and numpy arrays travel"),
        (Loop(w=np.zeros(2, complex)), "Loop.weights(): tensor w: dtype complex128 cannot travel"),
        (lacking(weights=lambda self: [1]), "Mine.weights() gave a list; needed: name -> tensor or array"),
    ],
)
def test_what_a_loop_lacks_is_named(loop, words):
    with pytest.raises(ConfigError) as error:
        LoopLearner(loop, ROLE)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ({"w": np.zeros((2, 3))}, "Loop.weights(): w is F64 [2, 3] now, was F64 [2]; shapes and dtypes must stay"),
        ({"w": np.zeros(2, np.float32)}, "Loop.weights(): w is F32 [2] now, was F64 [2]"),
        ({"w": np.zeros(2), "bias": np.zeros(1)}, "Loop.weights() has other names than at first: bias"),
    ],
)
def test_weights_that_change_are_named(later, words):
    learner = LoopLearner(loop := Loop(w=np.zeros(2)), ROLE)
    loop.mapping = later
    with pytest.raises(ConfigError) as error:
        learner.weights()
    assert str(error.value).startswith(words)
