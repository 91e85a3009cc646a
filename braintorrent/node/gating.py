"""Gates: what this lab lets into its merges. [gates] in peer.toml; the words of refusals are in the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping

from braintorrent.config import GatesSection
from braintorrent.contracts import Candidate, MergeOutcome
from braintorrent.learning.contract import Learner
from braintorrent.learning.gating import Norms, scores_here, worse
from braintorrent.learning.merging import Bounds
from braintorrent.node.roster import Roster
from braintorrent.storage import Ledger
from braintorrent.weights import Weights

VALIDATION = "validation"  # the reason in the ledger: worse on own validation cases by more than `drop`
REVOKED = "revoked"  # the reason there: it contains a lab revoked here, which says nothing about its author
SCORED = 256  # models whose score is remembered: a method that takes everyone meets them again


class Gates:
    """Used on the learner's thread. What was accepted in earlier lives is in the ledger."""

    def __init__(self, section: GatesSection, ledger: Ledger, roster: Roster) -> None:
        self.section, self._roster = section, roster
        merges = ledger.merges() if section.norm else []
        norms = ({author: part.norm for author, part in merged.included.items()} for _, merged in merges)
        self._norms = Norms(section.norm, norms)
        self._scores: dict[str, float] = {}  # content digest -> score here

    @property
    def bounds(self) -> Bounds:
        """What the next merge holds models to."""
        return Bounds(self._norms.most(self._roster.ids), self.section.max_share)

    def accepted(self, outcome: MergeOutcome) -> None:
        """A merge was taken."""
        self._norms.accepted({author: norm for author, norm in outcome.norms.items() if author in outcome.included})

    def refused(
        self, learner: Learner, own: Mapping[str, float], offered: Mapping[str, Candidate], scratch: Weights
    ) -> dict[str, str]:
        """Author -> in words, of the models that do too badly here; `offered` by content digest.

        own: metrics of this lab's own model, empty for a newcomer, whose shared start is then scored.
        """
        if self.section.gate != VALIDATION or not offered:
            return {}
        before = (own or learner.evaluate()).get(learner.score, math.nan)
        if math.isnan(before):
            return {}
        self._score(learner, {d: c for d, c in offered.items() if d not in self._scores}, scratch)
        known = {c.author: self._scores[digest] for digest, c in offered.items() if digest in self._scores}
        return {
            author: f"{learner.score} {score:.3f} here, own {before:.3f}"
            for author, score in known.items()
            if worse(score, before, self.section.drop)
        }

    def _score(self, learner: Learner, new: Mapping[str, Candidate], scratch: Weights) -> None:
        scores = scores_here(learner, list(new.values()), scratch)
        self._scores |= {digest: scores[c.author] for digest, c in new.items() if c.author in scores}
        while len(self._scores) > SCORED:
            del self._scores[next(iter(self._scores))]
