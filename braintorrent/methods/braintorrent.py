"""BrainTorrent, the plain method: Roy, Siddiqui, Pölsterl, Navab, Wachinger, arXiv:1905.06731, algorithm 1.

Peer i merges its own model W_i, of a_i training cases, with the newer models W_j of the peers j in J:

    W = (a_i W_i + sum_J a_j W_j) / (a_i + sum_J a_j)

and trains on from W. The hooks of `Method` default to exactly this, so there is nothing to override.
"""

from __future__ import annotations

from typing import Any

from braintorrent.methods import Method
from braintorrent.methods._options import none_but


class BrainTorrent(Method):
    """The sample-weighted mean of own and newer models."""


def create(**options: Any) -> Method:
    """The method; it has no options, ConfigError if any is given."""
    none_but("braintorrent", options)
    return BrainTorrent()
