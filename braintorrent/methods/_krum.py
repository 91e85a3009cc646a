"""What Krum and multi-Krum share: models ranked by how near their nearest neighbours are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Needs
from braintorrent.methods._distances import ByDistance


class Krum(ByDistance):
    """The mean of the `keep` models of the least score; keep None: n - f - 2 of them."""

    def __init__(self, byzantine: int, keep: int | None) -> None:
        self.byzantine, self.keep = byzantine, keep
        least = max(2 * byzantine + 3, (keep or 0) + byzantine)
        self.needs = Needs(candidates=least - 1, adopting=least, everyone=True)

    def shares(
        self, squares: NDArray[np.float64], own: int | None, samples: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Equal ones for the chosen; of equal scores the first in order of peer id."""
        near = len(squares) - self.byzantine - 2
        scores = np.sort(squares, axis=1)[:, 1 : near + 1].sum(1)  # the first is its distance to itself
        keep = self.keep or near
        found = np.zeros(len(squares))
        found[np.argsort(scores, kind="stable")[:keep]] = 1 / keep
        return found
