"""Roll back: a merge that scores worse than this lab's own model on its own validation cases is undone.

Only with `rollback = true` in peer.toml. A newcomer that adopts has nothing to go back to, and never does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from braintorrent.contracts import MergeOutcome
from braintorrent.errors import ConfigError
from braintorrent.node.context import Context, log
from braintorrent.node.gating import VALIDATION
from braintorrent.node.lab import Lab
from braintorrent.protocol.messages import Announcement

WORSE = "worse"  # the reason in the ledger; it says nothing for good about a model
UNDONE = "undone"  # the stage under which the ledger holds what such a merge scored


def own_scores(lab: Lab, known: Mapping[str, float], newest: Announcement | None) -> Mapping[str, float]:
    """At a start: what merges are judged by. The learner is asked only if it has to be, and waited for.

    ConfigError for a lab that could never tell.
    """
    judging = "rollback" if lab.peer.rollback else "gates.gate" if lab.peer.gates.gate == VALIDATION else ""
    if not judging or lab.learner.score in known:
        return known
    log.info("scoring this lab's own model on its validation cases")
    metrics = lab.learner.evaluate()
    if lab.learner.score not in metrics:
        raise ConfigError(
            f"{lab.folder / 'peer.toml'}: {judging}: {lab.peer.name} has no validation cases that give a "
            f"{lab.learner.score}, so nothing can be judged; add some, or leave {judging} out"
        )
    return {} if newest is None else metrics


def take(context: Context, outcome: MergeOutcome, *, adopt: bool) -> MergeOutcome:
    """Put the merged weights into the learner, unless they do worse; what the merge is then. Learner's thread."""
    learner, me = context.lab.learner, context.lab.me
    others = sorted(outcome.included.keys() - {me})
    if not (others or adopt):
        return outcome  # all were refused or too few: the weights are here already, and so is the optimiser's state
    if not context.lab.peer.rollback or adopt:
        learner.load(context.accumulator)
        return outcome
    own, before = learner.weights().copy(), context.metrics["own"]
    learner.load(context.accumulator)
    after = learner.evaluate()
    names = ", ".join(map(context.lab.roster.name, others))
    figures = f"{learner.score} {_shown(after, learner.score)}, before {_shown(before, learner.score)}"
    if not _worse(before, after, learner.score):
        context.measured("merged", after)
        context.notes.pop("rollback", None)
        log.info("%s after the merge with %s", figures, names)
        return outcome
    learner.load(own)
    context.measured(UNDONE, after)
    context.notes["rollback"] = f"the merge with {names} was undone: {figures}"
    log.info("undoing the merge with %s: %s", names, figures)
    return MergeOutcome({me: 1.0}, {**outcome.skipped, **dict.fromkeys(others, WORSE)}, outcome.norms)


def _worse(before: Mapping[str, float], after: Mapping[str, float], name: str) -> bool:
    was, now = before.get(name, math.nan), after.get(name, math.nan)
    return not math.isnan(was) and not now >= was


def _shown(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else "unknown"
