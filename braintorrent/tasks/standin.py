"""A stand-in task without torch and without scans: each lab minimises a quadratic with its own optimum.

It is a learning.Learner by itself, so it exercises all of the protocol in milliseconds. Merging labs visibly
helps none of them and moves all to the mean of their optima, which makes the arithmetic easy to check.

    loss(x) = mean((x - optimum)^2) / 2        step: x <- x - rate (x - optimum)        score = exp(-loss)

The optimum repeats a short pattern, so that a model of 25 million parameters costs its own memory and no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from braintorrent.config import Section, validate
from braintorrent.contracts import Trained
from braintorrent.weights import Role, Schema, TensorSpec, Weights

PATTERN = 1000
BLOCK = 256 * PATTERN  # 1 MB of float32: stays in cache, and gives other threads their turn
SLICE = 0.05  # seconds slept between two questions whether to halt


class Options(Section):
    """[task] of federation.toml where kind = "standin"."""

    kind: Literal["standin"]
    size: int = Field(1000, ge=1, description="float32 parameters")
    steps: int = Field(10, ge=1, description="steps per version")
    seconds: float = Field(0.0, ge=0, description="time a version takes, at least")
    rate: float = Field(0.1, gt=0, le=1, description="share of the way to the optimum that a step goes")
    samples: int = Field(10, ge=1, description="training cases claimed")


class Standin:
    """A learner whose weights are "parameters", float32 [size], and "steps", an int64 that counts."""

    score = "score"

    def __init__(self, options: Options, start: int, seed: int) -> None:
        self.options, self.samples = options, options.samples
        parameters = TensorSpec("parameters", "F32", (options.size,))
        self.schema = Schema.of([parameters, TensorSpec("steps", "I64", (), Role.COUNTER)])
        self._weights = Weights(self.schema)
        self._x, self._counter = self._weights.view("parameters"), self._weights.view("steps")
        self._counter[...] = 0
        self._optimum = optimum(seed)
        pattern = np.tile(np.random.default_rng([0, start]).standard_normal(PATTERN, np.float32), BLOCK // PATTERN)
        for block in self._blocks():
            block[:] = pattern[: len(block)]
        self._done, self._seconds = 0, 0.0  # of the version under way

    def weights(self) -> Weights:
        """The live weights."""
        return self._weights

    def load(self, weights: Weights) -> None:
        """Take these weights."""
        self._weights.copy_from(weights)

    def train(self, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> Trained:
        """Finish the version under way, or begin one; figures are of the whole version."""
        steps, pause = self.options.steps, self.options.seconds / self.options.steps
        while self._done < steps:
            began = time.monotonic()
            if halt() or not _sleep(pause, halt):
                return Trained(self._done, self._seconds, self._loss(), complete=False)
            self._step()
            self._done += 1
            self._seconds += time.monotonic() - began
            progress(self._done, steps)
        report = Trained(steps, self._seconds, self._loss())
        self._done, self._seconds = 0, 0.0
        return report

    def evaluate(self) -> dict[str, float]:
        """{"score": exp(-loss)}: 1 at this lab's own optimum."""
        return {"score": math.exp(-self._loss())}

    def state(self) -> dict[str, NDArray[Any]]:
        """Steps and seconds of the version under way."""
        return {"done": np.array(self._done, np.int64), "seconds": np.array(self._seconds)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo `state`."""
        self._done, self._seconds = int(state["done"]), float(state["seconds"])

    def _step(self) -> None:
        rate = np.float32(self.options.rate)
        pull = np.tile(rate * self._optimum, BLOCK // PATTERN)
        for block in self._blocks():
            block *= 1 - rate
            block += pull[: len(block)]
        self._counter += 1

    def _loss(self) -> float:
        optimum, total = np.tile(self._optimum, BLOCK // PATTERN), 0.0
        for block in self._blocks():
            error = block - optimum[: len(block)]
            total += float(np.dot(error, error))
        return total / (2 * self.options.size)

    def _blocks(self) -> list[NDArray[np.float32]]:
        return [self._x[start : start + BLOCK] for start in range(0, self.options.size, BLOCK)]


def optimum(seed: int) -> NDArray[np.float32]:
    """[PATTERN] What a lab of this seed trains towards, again and again."""
    return np.random.default_rng([1, seed]).standard_normal(PATTERN, np.float32)


def _sleep(seconds: float, halt: Callable[[], bool]) -> bool:
    """Whether the sleep was not cut short."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if halt():
            return False
        time.sleep(min(left, SLICE))
    return True


def open_learner(options: dict[str, Any], data: Path, start: int, seed: int, where: str) -> Standin:
    """The learner of a lab: `start` seeds the weights all begin from, `seed` this lab's optimum. `data` is unused."""
    return Standin(validate(Options, options, where), start, seed)
