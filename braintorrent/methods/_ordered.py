"""For methods that put the values of each coordinate in order, whosever they are, and keep those in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Candidate, Needs
from braintorrent.methods import Method
from braintorrent.weights import weighted_mean

SLICE = 4096  # coordinates at a time: a few hundred KiB beside the blocks
LEAST = Needs(candidates=2, adopting=3, everyone=True)  # of two values none is in the middle


class Ordered(Method):
    """Everyone counts alike: a claim about one's number of cases gives no weight."""

    needs = LEAST

    def weigh(
        self, own: Candidate | None, candidates: Sequence[Candidate], measured: NDArray[np.float64]
    ) -> dict[str, float]:
        """Equal shares."""
        authors = [c.author for c in ([own] if own is not None else []) + list(candidates)]
        return dict.fromkeys(authors, 1 / len(authors))

    def cut(self, models: int) -> int:
        """How many values are left out at either end; 2 * cut < models."""
        return (models - 1) // 2

    def combine(self, blocks: Sequence[NDArray[Any]], weights: Sequence[float], out: NDArray[Any]) -> None:
        """The mean of what is left in the middle, coordinate by coordinate."""
        cut = self.cut(len(blocks))
        kept = range(cut, len(blocks) - cut)
        table = np.empty((SLICE, len(blocks)), out.dtype)
        for start in range(0, out.size, SLICE):
            part = out[start : start + SLICE]
            rows = table[: part.size]
            np.stack([block[start : start + SLICE] for block in blocks], axis=1, out=rows)
            rows.sort(axis=1)
            weighted_mean([rows[:, place] for place in kept], [1 / len(kept)] * len(kept), part)
