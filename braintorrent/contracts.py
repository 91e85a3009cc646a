"""The values that plug-ins and rooms exchange, and what a Task is.

A *Task* (tasks/) supplies data, network, loss and metrics; learning/ makes a *Learner* of it, a model on a
lab's own data (learning.Learner). A *Method* (methods.Method) decides how models are weighed and combined.
None of them knows the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Trained:
    """What one version's local training did. `complete` is False when it was halted at a batch boundary."""

    steps: int
    seconds: float
    loss: float
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer's model offered to a merge: who, how many training cases it claims, and its bytes.

    `descriptor` is an open file whose content is exactly one safetensors blob of the agreed schema;
    it is read by pread and never mapped.
    """

    author: str
    samples: int
    descriptor: int
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class MergeOutcome:
    """Who went into a merge at what weight (weights sum to 1, own included under its peer id), who did not, why.

    norms: author -> size of its update, the Euclidean norm ||W_j - W_own|| over all shared tensors.
    """

    included: Mapping[str, float]
    skipped: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method needs, so that what cannot work is refused at start with a reason.

    everyone: merges take the newest held model of every author, not only those newer than the last merge: of one
    or two candidates a median means little.
    """

    candidates: int = 0  # least number of other models in a merge
    adopting: int = 0  # likewise where a newcomer has no model of its own yet
    everyone: bool = False
    hooks: frozenset[str] = frozenset()  # of {"build", "transform", "loss"}: a learner that calls them


@dataclass(frozen=True, slots=True)
class Prediction:
    """One case evaluated: its name and metrics; arrays only where asked for (figures)."""

    case: str
    metrics: Mapping[str, float]
    image: np.ndarray | None = None
    truth: np.ndarray | None = None
    output: np.ndarray | None = None


def mean_metrics(predictions: Iterable[Prediction]) -> dict[str, float]:
    """Mean of each metric over the cases that have it: a class absent from a case says nothing about it."""
    values: dict[str, list[float]] = {}
    for prediction in predictions:
        for name, value in prediction.metrics.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


class Task(Protocol):
    """Data, network, loss and metrics of one kind of task, on torch. Built by the plug-in's `open_task`.

    A case is one subject; batches are what `loss` takes. Only tasks/ may import monai.
    """

    score: str
    samples: int  # training cases

    def network(self, seed: int) -> Any:
        """A freshly initialised torch module; the same seed gives the same weights on every machine."""

    def batch(self, seed: int, step: int) -> Any:
        """Training batch number `step`, on the device. It follows from the two numbers alone."""

    def loss(self, model: Any, batch: Any) -> Any:
        """Scalar training loss of one batch."""

    def optimiser(self, parameters: Any) -> Any:
        """The agreed torch optimiser."""

    def evaluate(self, model: Any, part: str, *, arrays: bool = False) -> list[Prediction]:
        """Metrics per case of part "validation", "test" or "training"."""

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Metrics of a part, `score` among them where it is defined: means over cases, or what only a set has (AUC)."""

    @property
    def steps(self) -> int:
        """Optimiser steps per version."""
