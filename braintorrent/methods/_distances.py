"""For methods that weigh models by how far they lie from each other. n models are n (n - 1) / 2 distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Candidate
from braintorrent.methods import Method

FAR = 1e300  # stands for a square that overflows: sums of such stay finite


class ByDistance(Method):
    """`measured` is D [n, n]: D_ij = ||W_i - W_j||^2 over all shared values, in order of peer id."""

    def measure(self, blocks: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """The squares of one block."""
        found, spare = np.zeros((len(blocks), len(blocks))), np.empty_like(blocks[0])
        with np.errstate(over="ignore", invalid="ignore"):  # a hostile peer prints no warnings here
            for i, one in enumerate(blocks):
                for j, other in enumerate(blocks[:i]):
                    np.subtract(one, other, out=spare)
                    found[i, j] = found[j, i] = float(np.dot(spare, spare))
        return found

    def weigh(
        self, own: Candidate | None, candidates: Sequence[Candidate], measured: NDArray[np.float64]
    ) -> dict[str, float]:
        """What `shares` says, by author; who gets nothing is left out, but for oneself."""
        everyone = sorted([*([own] if own is not None else []), *candidates], key=lambda c: c.author)
        place = everyone.index(own) if own is not None else None
        shares = self.shares(np.minimum(measured, FAR), place, np.array([float(c.samples) for c in everyone]))
        return {c.author: float(w) for c, w in zip(everyone, shares, strict=True) if w > 0}

    def shares(
        self, squares: NDArray[np.float64], own: int | None, samples: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Weights [n] summing to 1, of D [n, n], the place of the own model (None for a newcomer) and samples [n]."""
        return samples / samples.sum()


def centre(squares: NDArray[np.float64], own: int | None) -> int:
    """Where updates start: the own model, or for a newcomer the model that the others are least far from."""
    return own if own is not None else int(np.sqrt(squares).sum(1).argmin())


def usual(norms: NDArray[np.float64], start: int) -> float:
    """The median of the updates' norms [n], of an even number the lower: half of them cannot make it larger."""
    others = np.sort(np.delete(norms, start))
    return float(others[(len(others) - 1) // 2])


def clipping(norms: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """min(1, radius / norm); 1 where the norm is 0, and 0 where it is as good as infinite."""
    reach = np.maximum(norms, radius)
    steps = np.divide(radius, reach, out=np.ones_like(norms), where=reach > 0)
    return np.where(norms < math.sqrt(FAR) / 2, steps, 0.0)
