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
from braintorrent.learning.passes import Model, fits, load, plausible
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


def scores_here(learner: Learner, candidates: Sequence[Candidate], scratch: Weights) -> dict[str, float]:
    """Author -> score on this lab's validation cases, NaN where undefined. Learner's thread; scratch is overwritten.

    A model of another layout, or with values no model holds, has none: `merge` refuses it. The learner is left as it
    was.
    """
    found: dict[str, float] = {}
    sound = [c for c in candidates if fits(c, scratch.schema) and plausible(Model(c), scratch.schema)]
    if not sound:
        return found
    before, state = learner.weights().copy(), learner.state()
    try:
        for candidate in sound:
            load(candidate, scratch)
            learner.load(scratch)
            found[candidate.author] = learner.evaluate().get(learner.score, math.nan)
    finally:
        learner.load(before)
        learner.restore(state)
    return found


def worse(score: float, own: float, drop: float) -> bool:
    """Whether a score is more than `drop` below one's own; an undefined one is."""
    return not score >= own - drop
