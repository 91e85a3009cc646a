"""Centred clipping: Karimireddy, He, Jaggi, ICML 2021 (arXiv:2012.10333).

    v_0 = W_i,   v_l+1 = v_l + (1 / n) sum_j min(1, tau / ||W_j - v_l||) (W_j - v_l),   W = v_L

over all n models, own included, everyone counting alike. The paper starts from the last aggregate; here that is one's
own model W_i, and for a newcomer the model that the others are least far from. tau = `radius`; without it, the median
distance from v_0, of an even number the lower, which takes two others. L = `iterations`.

Each v_l is an affine combination of the models, sum_j c_j W_j, so its distances follow from those between models:
||W_i - v||^2 = sum_j c_j D_ij - 1/2 sum_jk c_j c_k D_jk. One reading measures D, whatever L.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Needs
from braintorrent.methods._distances import ByDistance, centre, clipping, usual
from braintorrent.methods._options import none_but, number, whole


class CentredClipping(ByDistance):
    """The centre moves by clipped steps; radius None: clipped to what is usual."""

    def __init__(self, radius: float | None, iterations: int) -> None:
        self.radius, self.iterations = radius, iterations
        self.needs = Needs(candidates=1 if radius else 2, adopting=3, everyone=True)

    def shares(
        self, squares: NDArray[np.float64], own: int | None, samples: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The coefficients c of v_L."""
        count, start = len(squares), centre(squares, own)
        radius = self.radius or usual(np.sqrt(squares[start]), start)
        found = np.zeros(count)
        found[start] = 1.0
        for _ in range(self.iterations):
            moments = squares @ found
            norms = np.sqrt(np.maximum(moments - found @ moments / 2, 0))
            steps = clipping(norms, radius) / count
            found = found * (1 - steps.sum()) + steps
        return found / found.sum()


def create(*, radius: Any = None, iterations: Any = 3, **unknown: Any) -> CentredClipping:
    """radius: the norm no step towards a model exceeds; iterations: steps of the centre."""
    none_but("centred_clipping", unknown, "radius", "iterations")
    clip = None if radius is None else number("centred_clipping", "radius", radius)
    return CentredClipping(clip, whole("centred_clipping", "iterations", iterations, 1))
