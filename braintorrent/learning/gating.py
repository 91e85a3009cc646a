"""Gates before a merge: which verified models are taken at all. Each refusal has a word that is recorded.

    norm        the update is far larger than those accepted of late, whoever's: scaled, or of another kind
    validation  on this lab's own validation cases the model is worse than its own by more than a little

What a model is checked for while it is read (layout, finite values, norms) is in merging.py; this is what it is
checked against.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median

from braintorrent.contracts import Candidate
from braintorrent.learning.contract import Learner
from braintorrent.learning.passes import fits, load
from braintorrent.weights import Weights

RECENT = 64  # accepted updates
SEEN = 5  # of them before anything is refused: of fewer, no median is a habit


class Norms:
    """The norms of updates accepted of late, of all authors, and what follows for the next; factor 0: nothing."""

    def __init__(self, factor: float, before: Iterable[float] = ()) -> None:
        self.factor, self._recent = factor, deque[float](maxlen=RECENT)
        self.accepted(before)

    def accepted(self, norms: Iterable[float]) -> None:
        """These went into a merge. One of 0 is a model that is here already, and says nothing of updates."""
        self._recent.extend(norm for norm in norms if norm > 0)

    @property
    def most(self) -> float:
        """The largest norm accepted now."""
        known = self.factor and len(self._recent) >= SEEN
        return self.factor * median(self._recent) if known else math.inf


def worse_here(
    learner: Learner, own: float, candidates: Sequence[Candidate], scratch: Weights, drop: float
) -> dict[str, float]:
    """Author -> score, of the models that score below own - drop on this lab's validation cases. Learner's thread.

    own: the score of the own model; scratch is overwritten. A score that is not defined is worse. The learner is
    left as it was. A model of another layout, or that is not finite, is left to `merge` to refuse.
    """
    if not candidates:
        return {}
    before, state, found = learner.weights().copy(), learner.state(), {}
    try:
        for candidate in candidates:
            if fits(candidate, scratch.schema):
                load(candidate, scratch)
                learner.load(scratch)
                found[candidate.author] = learner.evaluate().get(learner.score, math.nan)
    finally:
        learner.load(before)
        learner.restore(state)
    return {author: score for author, score in found.items() if not score >= own - drop}
