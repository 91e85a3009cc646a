"""What a lab runs: a model on its own data. A torch task becomes one in learner.py; others may be one themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from braintorrent.contracts import Trained
from braintorrent.weights import Schema, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


@runtime_checkable
class Learner(Protocol):
    """A model, its data, and how to improve the one with the other. Used from one thread at a time.

    It may have `after(versions)`: a state for `restore` that continues with the batches after so many versions.
    """

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
