"""Gates before a merge: which verified models are taken at all. Each refusal has a word that is recorded.

    norm        the update is far larger than those accepted of late of most others: scaled, or of another kind
    validation  on this lab's own validation cases the model is worse than its own by more than a little

What a model is checked for while it is read (layout, finite values, norms) is in merging.py; this is what it is
checked against.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median, median_low

from braintorrent.contracts import Candidate
from braintorrent.learning.contract import Learner
from braintorrent.learning.passes import Model, fits, load, plausible
from braintorrent.weights import Weights

RECENT = 15  # accepted updates of one author, whose median is its habit
SEEN = 5  # accepted updates of all before anything is refused: of fewer, no median is a habit
CROWD = 3  # authors among whom one can be outvoted


class Norms:
    """The norms of updates accepted so far, by author, and what follows for the next; factor 0: nothing.

    Every author counts once, however often it publishes, so fewer than half of CROWD or more authors move the bound
    neither up nor down beyond what honest ones send. Of fewer authors nobody has a majority: what the first SEEN
    updates allowed is never exceeded.
    """

    def __init__(self, factor: float, before: Iterable[Mapping[str, float]] = ()) -> None:
        self.factor = factor
        self._first: list[float] = []
        self._recent: dict[str, deque[float]] = {}
        for norms in before:
            self.accepted(norms)

    def accepted(self, norms: Mapping[str, float]) -> None:
        """Author -> norm, in one merge. One of 0 is a model that is here already, and says nothing of updates."""
        for author, norm in norms.items():
            if norm > 0:
                self._recent.setdefault(author, deque(maxlen=RECENT)).append(norm)
                self._first += [norm] if len(self._first) < SEEN else []

    def most(self, authors: Collection[str]) -> float:
        """The largest norm accepted now, if these are the other labs: who left, or had another key, has no voice."""
        habits = [median(recent) for author, recent in self._recent.items() if author in authors]
        if not self.factor or len(self._first) < SEEN:
            return math.inf
        if len(habits) >= CROWD:
            return self.factor * median_low(habits)
        return self.factor * min([median(self._first), *([max(habits)] if habits else [])])


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
