"""The stand-in is a Learner, converges where it says, and costs little."""

from __future__ import annotations

import gc
import math
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from braintorrent import plugins
from braintorrent.errors import ConfigError
from braintorrent.learning.contract import Learner


def open_learner(start: int = 0, seed: int = 1, **options: float) -> Learner:
    plugin = plugins.load("tasks", "standin")
    learner: Learner = plugin.open_learner({"kind": "standin", **options}, Path(), start, seed, "federation.toml: task")
    return learner


def go_on() -> bool:
    return False


def ignore(step: int, steps: int) -> None:
    pass


def test_it_is_a_learner_that_learns() -> None:
    learner = open_learner(steps=100)
    assert isinstance(learner, Learner)
    before = learner.evaluate()[learner.score]
    report = learner.train(go_on, ignore)
    assert (report.steps, report.complete) == (100, True)
    assert before < 0.7
    assert learner.evaluate()[learner.score] == pytest.approx(1, abs=1e-6)
    assert learner.weights().view("steps") == 100


def test_all_labs_start_alike_and_differ_after_training() -> None:
    ours, theirs = open_learner(seed=1), open_learner(seed=2)
    assert ours.weights().digest == theirs.weights().digest != open_learner(start=1).weights().digest
    for learner in (ours, theirs):
        learner.train(go_on, ignore)
    assert ours.weights().digest != theirs.weights().digest


def test_halted_and_restored_it_goes_on_where_it_was() -> None:
    whole, first, second = (open_learner(steps=10) for _ in range(3))
    whole.train(go_on, ignore)
    seen: list[int] = []
    halted = first.train(lambda: len(seen) == 4, lambda step, steps: seen.append(step))
    assert (halted.steps, halted.complete) == (4, False)
    second.load(first.weights())
    second.restore(first.state())
    report = second.train(go_on, ignore)
    assert (report.steps, report.complete) == (10, True)
    assert second.weights().digest == whole.weights().digest


def test_a_slow_version_can_be_halted_within_a_step() -> None:
    learner = open_learner(steps=1, seconds=3600)
    calls = iter([False, False, True])
    assert learner.train(lambda: next(calls), ignore).complete is False
    assert learner.weights().view("steps") == 0


@pytest.mark.parametrize("size", [1, 999, 256_001])
def test_any_size_has_the_loss_of_its_definition(size: int) -> None:
    learner = open_learner(size=size)
    parameters = learner.weights().view("parameters")
    optimum = np.resize(np.random.default_rng([1, 1]).standard_normal(1000, np.float32), size)
    loss = np.mean((parameters.astype(float) - optimum) ** 2) / 2
    assert learner.evaluate()["score"] == pytest.approx(math.exp(-loss), rel=1e-4)


def test_a_large_model_costs_its_own_memory() -> None:
    tracemalloc.start()
    try:
        learner = open_learner(size=5_000_000, steps=1)
        learner.train(go_on, ignore)
        learner.evaluate()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000 + 8_000_000
    finally:
        tracemalloc.stop()


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^federation.toml: task: sise: unknown key"):
        open_learner(sise=3)


@pytest.mark.parametrize("name", ["standin", "nonesuch"])
def test_after_a_plugin_was_loaded_or_not_garbage_is_collected_as_before(name: str) -> None:
    for collects, switch in ((False, gc.disable), (True, gc.enable)):
        switch()
        with suppress(ConfigError):
            plugins.load("tasks", name)
        assert gc.isenabled() == collects
