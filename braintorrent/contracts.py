"""The few shapes that plug-ins and rooms share: Learner, Method, and the values they exchange.

A *Learner* is what a lab runs: a model on its own data. A *Task* (tasks/) supplies data, network, loss
and metrics, and learning/ makes a Learner of it; a task without torch may be a Learner itself. A
*Method* (methods/) decides how models are weighed and combined. None of them knows the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from braintorrent.weights import Schema, Weights


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


@runtime_checkable
class Learner(Protocol):
    """A model, its data, and how to improve the one with the other. Used from one thread at a time."""

    schema: Schema
    samples: int  # training cases, a_i in Roy et al.
    score: str  # the metric of `evaluate` that is better when larger

    def weights(self) -> Weights:
        """The current shared weights and counters as one flat buffer. May alias the live model."""

    def load(self, weights: Weights) -> None:
        """Take these weights (after a merge, or a restart). The optimiser follows its `after_merge` rule."""

    def train(self, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> Trained:
        """One version's local steps. `halt()` is asked between batches; `progress(step, steps)` after each."""

    def evaluate(self) -> dict[str, float]:
        """Metrics on this lab's own validation cases."""

    def state(self) -> dict[str, NDArray[Any]]:
        """All a checkpoint needs beside the weights: optimiser, personal tensors, random state, step."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo `state`: continue as if never interrupted."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method needs, so that what cannot work is refused at start with a reason."""

    candidates: int = 0  # least number of other models in a merge
    hooks: frozenset[str] = frozenset()  # of {"build", "transform", "loss"}: a learner that calls them


class Method:
    """Plain BrainTorrent (Roy et al., arXiv:1905.06731). A method overrides the hooks it changes.

    State is explicit: whatever a method remembers goes through `state` and `restore`.
    """

    needs = Needs()

    def role(self, name: str, role: str) -> str:
        """The role of a tensor: "shared", "counter" or "personal". `role` is what its dtype suggests."""
        return role

    def build(self, model: Any) -> Any:
        """Change the network before its weights are laid out (torch module in, torch module out)."""
        return model

    def transform(self, sample: Any) -> Any:
        """Change a training batch after the task's own transforms."""
        return sample

    def loss(self, loss: Any, model: Any, anchor: Weights | None) -> Any:
        """Change the training loss of one batch (scalar tensor); `anchor`: the last merged weights."""
        return loss

    def weigh(self, own: Candidate | None, candidates: Sequence[Candidate]) -> dict[str, float]:
        """Author -> weight, summing to 1; own sample count against theirs: a_j / (a_i + sum a_j).

        `own` is None when a newcomer adopts. Leave an author out to skip it.
        """
        present = [*([own] if own is not None else []), *candidates]
        total = sum(c.samples for c in present)
        return {c.author: c.samples / total for c in present}

    def combine(self, blocks: Sequence[NDArray[Any]], weights: Sequence[float], out: NDArray[Any]) -> None:
        """Write the merged block to `out`: sum_j w_j W_j over 1-D float32 or float64 blocks of equal length.

        Blocks come in order of peer id and are only read; `out` aliases none of them. Called by two threads at
        once, for different blocks.
        """
        from braintorrent.weights import weighted_mean

        weighted_mean(blocks, weights, out)

    def merged(self, outcome: MergeOutcome) -> None:
        """Told after each merge."""

    def state(self) -> dict[str, Any]:
        """What to remember across a restart (plain values)."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo `state`."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One case evaluated: its name and metrics; arrays only where asked for (figures)."""

    case: str
    metrics: Mapping[str, float]
    image: np.ndarray | None = None
    truth: np.ndarray | None = None
    output: np.ndarray | None = None


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

    @property
    def steps(self) -> int:
        """Optimiser steps per version."""
