"""What the labs of a World learn with: a point that each pulls towards its own optimum, or experiments/learners' torch.

Of a point the best for all together is known in closed form, and ten thousand of them train in no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import dist, nan
from random import Random
from statistics import median
from typing import Any, NamedTuple, Protocol

from braintorrent.errors import ConfigError
from braintorrent.simulation.scenario import Scenario

Model = Any  # prints the same in every process, and no other model prints so
Point = tuple[float, ...]
Weighed = Sequence[tuple[Point, float]]  # (model, weight)
Offered = Sequence[tuple[str, int, Model]]  # (author, training cases, model)


@dataclass(frozen=True)
class Lab:
    """What one lab's learning is like. Times are seconds, as in Scenario."""

    samples: int
    optimum: Point
    train: float  # one version
    merge: float
    store: float


class Blob(NamedTuple):
    """A published model, as the simulation knows it."""

    model: Model
    influence: int  # bit k: the k-th watched publish, or a model that merged it, went into it
    at: float  # second of the publish


class Measured(NamedTuple):
    """Of the present labs' models: `mean` and `worst` as Learning.score says; their mean distance to their mean.

    Of nobody, nothing is a number.
    """

    mean: float = nan
    worst: float = nan
    consensus: float = nan


class Learning(Protocol):
    """Labs by index. The same calls in the same order give the same models."""

    labs: Sequence[Lab]
    start: Model  # all begin with it
    score: str  # what `measure` tells of each lab; "": the distance to the optimum

    def train(self, lab: int, model: Model, before: int, rng: Random) -> Callable[[], tuple[Model, float | None]]:
        """Begin one version's training, after so many others; whoever calls the result waits for model and score."""

    def merge(self, lab: int, own: Model | None, others: Offered) -> Model:
        """Merge; own: None for a newcomer that adopts."""

    def poison(self, model: Model, scale: float) -> Model:
        """The model moved by `scale` in every parameter."""

    def measure(self, models: Mapping[int, Model]) -> Measured:
        """What to draw of these labs' models."""


class StandIn:
    """A Learning without data: see scenario.Quadratic."""

    score = ""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.labs = labs(scenario, Random(f"{seed}/labs"))
        self.start: Point = (0.0,) * scenario.learner.dimension
        self.optimum = mean([(lab.optimum, lab.samples) for lab in self.labs])  # of the labs' losses together
        self._rate, self._noise, self._method = scenario.learner.rate, scenario.learner.noise, _method(scenario.method)

    def train(self, lab: int, model: Point, before: int, rng: Random) -> Callable[[], tuple[Point, float]]:
        """A share of the way to the lab's own optimum; the score is the loss below zero."""
        return partial(self._trained, self.labs[lab].optimum, model, rng)

    def _trained(self, optimum: Point, model: Point, rng: Random) -> tuple[Point, float]:
        rate, noise = self._rate, self._noise
        moved = tuple([x + rate * (c - x) for x, c in zip(model, optimum, strict=True)])
        if noise:
            moved = tuple([x + rng.gauss(0.0, noise) for x in moved])
        return moved, -sum([(x - c) ** 2 for x, c in zip(moved, optimum, strict=True)]) / 2

    def merge(self, lab: int, own: Point | None, others: Offered) -> Point:
        """As the scenario's method does."""
        mine = [] if own is None else [(own, self.labs[lab].samples)]
        return self._method([*mine, *((model, samples) for _, samples, model in others)])

    def poison(self, model: Point, scale: float) -> Point:
        """Moved in every dimension."""
        return tuple(x + scale for x in model)

    def measure(self, models: Mapping[int, Point]) -> Measured:
        """Distances are Euclidean."""
        if not models:
            return Measured()
        centre = [sum(column) / len(models) for column in zip(*models.values(), strict=True)]
        away = [dist(model, self.optimum) for model in models.values()]
        apart = [dist(model, centre) for model in models.values()]
        return Measured(sum(away) / len(away), max(away), sum(apart) / len(apart))


def labs(scenario: Scenario, rng: Random) -> list[Lab]:
    """The labs of a scenario."""
    learner, made = scenario.learner, []
    for index in range(scenario.peers):
        special = scenario.special.get(index)
        samples, speed = rng.randint(*learner.samples), rng.uniform(*scenario.speed)
        optimum = tuple(rng.gauss(0.0, learner.spread) for _ in range(learner.dimension))
        if special is not None:
            samples, speed = special.samples or samples, special.speed or speed
        takes = (scenario.version_seconds / speed, scenario.merge_seconds, scenario.store_seconds)
        made.append(Lab(samples, optimum, *takes))
    return made


def mean(models: Weighed) -> Point:
    """The paper's merge: sum of a_i x_i / sum of a_i."""
    total = sum(weight for _, weight in models)
    columns = zip(*(model for model, _ in models), strict=True)
    return tuple(sum(x * a for x, (_, a) in zip(column, models, strict=True)) / total for column in columns)


def middle(models: Weighed) -> Point:
    """The median of each coordinate, whatever the samples."""
    return tuple(median(column) for column in zip(*(model for model, _ in models), strict=True))


METHODS: dict[str, Callable[[Weighed], Point]] = {"braintorrent": mean, "coordinate_median": middle}


def _method(name: str) -> Callable[[Weighed], Point]:
    if name not in METHODS:
        raise ConfigError(f"method {name} cannot be simulated; these can: {', '.join(METHODS)}")
    return METHODS[name]
