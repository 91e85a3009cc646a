"""Learning reduced to a point: each lab pulls towards its own optimum, and the best for all together is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import dist
from random import Random
from statistics import median
from typing import NamedTuple

from braintorrent.errors import ConfigError
from braintorrent.simulation.scenario import Scenario

Model = tuple[float, ...]
Weighed = Sequence[tuple[Model, float]]  # (model, weight)


@dataclass(frozen=True)
class Lab:
    """What one lab's learning is like. Times are seconds."""

    samples: int
    optimum: Model
    train: float  # one version
    merge: float = 0.5
    store: float = 0.1  # until a version is durable


class Blob(NamedTuple):
    """A published model, as the simulation knows it."""

    model: Model
    influence: int  # bit k: the k-th watched publish, or a model that merged it, went into it
    at: float  # second of the publish


def labs(scenario: Scenario, rng: Random) -> list[Lab]:
    """The labs of a scenario."""
    learner, made = scenario.learner, []
    for index in range(scenario.peers):
        special = scenario.special.get(index)
        samples, speed = rng.randint(*learner.samples), rng.uniform(*scenario.speed)
        optimum = tuple(rng.gauss(0.0, learner.spread) for _ in range(learner.dimension))
        if special is not None:
            samples, speed = special.samples or samples, special.speed or speed
        made.append(Lab(samples, optimum, scenario.version_seconds / speed))
    return made


def trained(model: Model, lab: Lab, scenario: Scenario, rng: Random) -> Model:
    """One version later: a share of the way to the lab's own optimum."""
    rate, noise = scenario.learner.rate, scenario.learner.noise
    moved = tuple(x + rate * (c - x) for x, c in zip(model, lab.optimum, strict=True))
    return tuple(x + rng.gauss(0.0, noise) for x in moved) if noise else moved


def mean(models: Weighed) -> Model:
    """The paper's merge: sum of a_i x_i / sum of a_i."""
    total = sum(weight for _, weight in models)
    columns = zip(*(model for model, _ in models), strict=True)
    return tuple(sum(x * a for x, (_, a) in zip(column, models, strict=True)) / total for column in columns)


def middle(models: Weighed) -> Model:
    """The median of each coordinate, whatever the samples; of models with no weight, nothing."""
    return tuple(median(column) for column in zip(*(model for model, weight in models if weight), strict=True))


METHODS: dict[str, Callable[[Weighed], Model]] = {"braintorrent": mean, "coordinate_median": middle}


def method(name: str) -> Callable[[Weighed], Model]:
    """The merge of this name; ConfigError if a point cannot be merged so."""
    if name not in METHODS:
        raise ConfigError(f"method {name} cannot be simulated; these can: {', '.join(METHODS)}")
    return METHODS[name]


def optimum(of: Sequence[Lab]) -> Model:
    """The minimum of the labs' losses together, weighted with their samples."""
    return mean([(lab.optimum, lab.samples) for lab in of])


def distances(models: Sequence[Model], to: Model) -> list[float]:
    """Euclidean."""
    return [dist(model, to) for model in models]
