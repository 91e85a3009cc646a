"""The coordinate-wise median: Yin, Chen, Kannan, Bartlett, ICML 2018 (arXiv:1803.01498), option I.

    W[k] = median of W_1[k], ..., W_n[k]        for each coordinate k, own model included

of an even number, the mean of the two in the middle. Fewer than n/2 models cannot move a coordinate beyond what the
others hold. Needs 3 models: of two, the median is their mean.
"""

from __future__ import annotations

from typing import Any

from braintorrent.methods._options import none_but
from braintorrent.methods._ordered import Ordered


class CoordinateMedian(Ordered):
    """All but the one or two in the middle are left out."""


def create(**options: Any) -> CoordinateMedian:
    """The method; it has no options."""
    none_but("coordinate_median", options)
    return CoordinateMedian()
