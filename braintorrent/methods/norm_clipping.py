"""Norm clipping: Sun, Kairouz, Suresh, McMahan, 2019 (arXiv:1911.07963), "norm thresholding of updates".

    W = W_i + sum_j w_j min(1, M / ||W_j - W_i||) (W_j - W_i),   w_j = a_j / (a_i + sum a)

The server's model is one's own here (W_i, of a_i cases), as in He, Karimireddy, Jaggi, 2022 (arXiv:2202.01545); a
newcomer has none, and takes the model that the others are least far from. M = `radius`; without it, the median of
the norms in this merge, of an even number the lower, which takes two others. A direction is not judged: an attacker
still pulls, but no further than an honest lab.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Needs
from braintorrent.methods._distances import ByDistance, centre, clipping, usual
from braintorrent.methods._options import none_but, number


class NormClipping(ByDistance):
    """The sample-weighted mean of updates no longer than `radius`; None: than is usual among them."""

    def __init__(self, radius: float | None) -> None:
        self.radius = radius
        self.needs = Needs(candidates=1 if radius else 2, adopting=3, everyone=True)

    def shares(
        self, squares: NDArray[np.float64], own: int | None, samples: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What clipping takes from an update goes to where it starts."""
        start = centre(squares, own)
        norms = np.sqrt(squares[start])
        found: NDArray[np.float64] = samples / samples.sum() * clipping(norms, self.radius or usual(norms, start))
        found[start] = 0
        found[start] = 1 - found.sum()
        return found


def create(*, radius: Any = None, **unknown: Any) -> NormClipping:
    """radius: the norm no update exceeds."""
    none_but("norm_clipping", unknown, "radius")
    return NormClipping(None if radius is None else number("norm_clipping", "radius", radius))
