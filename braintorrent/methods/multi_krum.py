"""Multi-Krum: Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017 (arXiv:1703.02757), section 4.

    W = (1 / m) sum of the m models of least s(i),  s(i) as in krum.py

m = `keep`; without it n - f - 2, as many as each score counts. n models, own included, of which f = `byzantine` may
be anything; needs n >= 2 f + 3, and n >= m + f, so that there are as many honest ones.
"""

from __future__ import annotations

from typing import Any

from braintorrent.methods._krum import Krum
from braintorrent.methods._options import none_but, whole


def create(*, byzantine: Any = 1, keep: Any = None, **unknown: Any) -> Krum:
    """byzantine: how many models of a merge may be hostile; keep: how many are taken."""
    none_but("multi_krum", unknown, "byzantine", "keep")
    kept = None if keep is None else whole("multi_krum", "keep", keep, 1)
    return Krum(whole("multi_krum", "byzantine", byzantine, 1), kept)
