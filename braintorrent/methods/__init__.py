"""Federated methods: one file is one method. `Method` has every hook, each defaulting to plain BrainTorrent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from braintorrent.contracts import Candidate, MergeOutcome, Needs
from braintorrent.weights import Weights, weighted_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

    def measure(self, blocks: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Statistics of one block of everyone, in order of peer id; their sum over all blocks is what `weigh` gets.

        Only a method that overrides this has all models read once more, before they are weighed.
        """
        return np.zeros(0)

    def weigh(
        self, own: Candidate | None, candidates: Sequence[Candidate], measured: NDArray[np.float64]
    ) -> dict[str, float]:
        """Author -> weight, summing to 1; own sample count against theirs: a_j / (a_i + sum a_j).

        `own` is None when a newcomer adopts. Leave an author out to skip it. measured: see `measure`.
        """
        present = [*([own] if own is not None else []), *candidates]
        total = sum(c.samples for c in present)
        return {c.author: c.samples / total for c in present}

    def combine(self, blocks: Sequence[NDArray[Any]], weights: Sequence[float], out: NDArray[Any]) -> None:
        """Write the merged block to `out`: sum_j w_j W_j over 1-D float32 or float64 blocks of equal length.

        Blocks come in order of peer id and are only read; `out` aliases none of them. Called by two threads at
        once, for different blocks.
        """
        weighted_mean(blocks, weights, out)

    def merged(self, outcome: MergeOutcome) -> None:
        """Told after each merge."""

    def state(self) -> dict[str, Any]:
        """What to remember across a restart (plain values)."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo `state`."""
