"""Krum: Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017 (arXiv:1703.02757).

    W = W_i*,  i* = argmin_i s(i),  s(i) = sum of ||W_i - W_j||^2 over the n - f - 2 models j nearest to i

n models, own included, of which f = `byzantine` may be anything. The paper asks for n >= 2 f + 3. One lab's model is
taken as it is; the lab's own counts like any other's, and may be the one.
"""

from __future__ import annotations

from typing import Any

from braintorrent.methods._krum import Krum
from braintorrent.methods._options import none_but, whole


def create(*, byzantine: Any = 1, **unknown: Any) -> Krum:
    """byzantine: how many models of a merge may be hostile."""
    none_but("krum", unknown, "byzantine")
    return Krum(whole("krum", "byzantine", byzantine, 1), keep=1)
