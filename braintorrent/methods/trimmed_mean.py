"""The coordinate-wise trimmed mean: Yin, Chen, Kannan, Bartlett, ICML 2018 (arXiv:1803.01498), option II.

    W[k] = mean of W_1[k], ..., W_n[k] without the c largest and the c smallest,  c = ceil(trim n)

for each coordinate k, own model included; `trim`, the paper's beta in (0, 1/2), is at least the share of attackers. c
is rounded up, so that few models are not left untrimmed, and leaves one value or two: at most it is the median.
"""

from __future__ import annotations

import math
from typing import Any

from braintorrent.methods._options import none_but, number
from braintorrent.methods._ordered import Ordered


class TrimmedMean(Ordered):
    """A share `trim` is left out at either end."""

    def __init__(self, trim: float) -> None:
        self.trim = trim

    def cut(self, models: int) -> int:
        """How many values are left out at either end."""
        return min(math.ceil(self.trim * models), super().cut(models))


def create(*, trim: Any = 0.25, **unknown: Any) -> TrimmedMean:
    """trim: the share left out at either end, above 0 and below 0.5."""
    none_but("trimmed_mean", unknown, "trim")
    return TrimmedMean(number("trimmed_mean", "trim", trim, below=0.5))
