"""Merge: own model and the verified ones, block by block, as the method says. No torch, no network.

A model that does not fit, or holds a value no model holds, is skipped with a reason, and the weights are
computed anew over those left. Finiteness is checked in the pass that merges, from the norm of the update;
only if that hints at trouble is everybody examined exactly and the pass begun again. So is an update that is
too large. A method that weighs models by what is in them has them all read once more, before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from braintorrent.contracts import Candidate, MergeOutcome
from braintorrent.learning.passes import Model, Pass, Suspect, fits, measure, plausible
from braintorrent.methods import Method
from braintorrent.weights import Weights


@dataclass(frozen=True, slots=True)
class Bounds:
    """norm: of an update ||W_j - W_own|| at most; share: weight of any one other model at most."""

    norm: float = math.inf
    share: float = 1.0


UNBOUNDED = Bounds()


def merge(
    method: Method, own: Weights | None, me: Candidate, candidates: Sequence[Candidate], out: Weights,
    bounds: Bounds = UNBOUNDED,
) -> MergeOutcome:  # fmt: skip
    """Write the merged model to `out` (not `own`'s memory) and say who is in it, at what weight, who is not and why.

    own: this peer's model, None when a newcomer adopts; me: its id and samples (descriptor unused).
    Reasons: "schema" (another layout), "not-finite" (NaN, infinity, or beyond a quarter of the dtype's
    range), "norm" (beyond `bounds`), "too-few" (fewer than the method needs), "method" (it left the author
    out). With nobody to merge and nothing of its own, `included` is empty and `out` is untouched.
    """
    schema = out.schema
    if own is not None and (own.schema.digest != schema.digest or np.may_share_memory(own.buffer, out.buffer)):
        raise ValueError("own and out must be two models of one schema")
    fitting = {c.author: fits(c, schema) for c in candidates}
    skipped = {author: "schema" for author, fit in fitting.items() if not fit}
    if len(fitting) != len(candidates) or (own is not None and me.author in fitting):
        raise ValueError("an author can be in a merge once")
    mine = Model(me, own) if own is not None else None
    models = [Model(c) for c in candidates if fitting[c.author]]
    work = _Work(method, out, bounds)
    try:
        return work.merge(mine, models, skipped)
    except Suspect:
        unfit = {m.author for m in [*models, *([mine] if mine else [])] if not plausible(m, schema)}
        skipped |= dict.fromkeys(sorted(unfit), "not-finite")
        models = [m for m in models if m.author not in unfit]
        return replace(work, exact=True).merge(None if me.author in unfit else mine, models, skipped)


@dataclass(frozen=True)
class _Work:
    """What a merge is made with. `exact`: everybody has been examined, and there is no Suspect any more."""

    method: Method
    out: Weights
    bounds: Bounds
    exact: bool = False

    def merge(self, mine: Model | None, models: Sequence[Model], skipped: Mapping[str, str]) -> MergeOutcome:
        needs = self.method.needs
        if not models or len(models) < (needs.candidates if mine else needs.adopting):
            skipped = {**skipped, **{m.author: "too-few" for m in models}}
            if mine is None or mine.weights is None:
                return MergeOutcome({}, skipped)
            self.out.copy_from(mine.weights)
            return MergeOutcome({mine.author: 1.0}, skipped)
        everyone = sorted([*models, *([mine] if mine else [])], key=lambda m: m.author)
        weights = self.weigh(mine, models, everyone)
        present = [m for m in everyone if m.author in weights]
        norms = Pass(self.method, mine, present, [weights[m.author] for m in present], self.out, self.exact).run()
        large = {author for author, norm in norms.items() if norm > self.bounds.norm}
        if large:
            skipped = {**skipped, **dict.fromkeys(sorted(large), "norm")}
            return self.merge(mine, [m for m in models if m.author not in large], skipped)
        skipped = {**skipped, **{m.author: "method" for m in everyone if m.author not in weights}}
        return MergeOutcome({m.author: weights[m.author] for m in present}, skipped, norms)

    def weigh(self, mine: Model | None, models: Sequence[Model], everyone: Sequence[Model]) -> Mapping[str, float]:
        method = self.method
        measured = measure(method, everyone, self.out.schema)
        if not self.exact and not np.isfinite(measured).all():
            raise Suspect
        weights = method.weigh(mine.candidate if mine else None, [m.candidate for m in models], measured)
        if not all(w >= 0 for w in weights.values()) or not math.isclose(sum(weights.values()), 1.0, rel_tol=1e-6):
            raise ValueError(f"{type(method).__name__}.weigh must give weights >= 0 that sum to 1, gave {weights}")
        if type(method).combine is not Method.combine:
            return weights  # it counts, rather than weighs: what it makes of a share is its own affair
        return capped(weights, mine.author if mine else None, self.bounds.share)


def capped(weights: Mapping[str, float], me: str | None, share: float) -> Mapping[str, float]:
    """The weights with no other's above `share`; what is too much goes to the rest in proportion, or else to oneself.

    A newcomer (me: None) has nothing of its own: where the others are too few for the cap, they count alike.
    """
    over: set[str] = set()
    while more := {a for a, w in weights.items() if w > share * (1 + 1e-9) and a != me}:
        over |= more
        left, rest = 1 - share * len(over), {a: w for a, w in weights.items() if a not in over}
        if not any(rest.values()):
            if me is None:
                return dict.fromkeys(weights, 1 / len(weights))
            rest = {me: 1.0}
        total = sum(rest.values())
        weights = {**dict.fromkeys(over, share), **{a: w / total * left for a, w in rest.items()}}
    return weights
