"""Merge: own model and the verified ones, as the method says. Who was in it, and who was not and why, is kept."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from braintorrent.contracts import Candidate, MergeOutcome
from braintorrent.learning.merging import merge as merge_weights
from braintorrent.node.context import Context, log
from braintorrent.node.gating import REVOKED, VALIDATION
from braintorrent.node.keeping import keep_merged, keep_own
from braintorrent.node.rollback import WORSE, take
from braintorrent.protocol import effects
from braintorrent.protocol.messages import Announcement
from braintorrent.storage import Merged, Part

Inside = Mapping[str, frozenset[str]]  # author -> labs revoked here whose training is known to be in its model
GONE = "gone"  # the bytes are not on this disk any more
PASSING = ("too-few", "method", GONE, WORSE, REVOKED)  # these say nothing about a model; it may be merged later


async def merge(context: Context, effect: effects.Merge) -> None:
    """Carry out a Merge, and tell the machine who is in it and who is not."""
    context.activity.begin("merging")
    inside = await context.insist(_revoked_inside, context, effect)
    await context.insist(lambda: context.gates)  # of the ledger, too
    work = functools.partial(_merge, context, effect, inside)
    outcome = await context.in_worker(context.activity.timed, "merging", work)
    merged = _describe(context, effect, outcome)
    _say(context, merged, inside)
    _note_left_out(context, effect, merged)
    if effect.last:
        await context.keep(context.ledger.merge, merged)  # no publication follows that would carry it
    elif outcome.included:
        context.pending.merge = merged
    others = outcome.included.keys() - {context.lab.me}
    context.last_merge, context.merges = merged.to_plain(), context.merges + bool(others)
    worse = [author for author, reason in outcome.skipped.items() if reason == WORSE]
    passing = ("method", REVOKED) if context.lab.method.needs.everyone else (REVOKED,)
    passed = [author for author, reason in outcome.skipped.items() if reason in passing]
    skipped = {author: reason for author, reason in outcome.skipped.items() if reason not in PASSING}
    for a in effect.candidates:
        if a.author in skipped:
            context.ledger.refuse(a.author, a.version, skipped[a.author])
            if skipped[a.author] == "schema":  # other tensors than its announcement says: no accident of training
                context.conduct.offend(a.author, "unfit: a version with other tensors than agreed")
        elif outcome.skipped.get(a.author) == GONE:
            context.machine.lost(a, context.now)
    context.tell(lambda now: context.machine.merged(outcome.included, skipped, now, worse, passed))


def _revoked_inside(context: Context, effect: effects.Merge) -> Inside:
    """The candidates known to contain labs revoked here, and the own model if it does."""
    revoked = context.lab.roster.revoked.keys()
    found, own = context.ancestry.containing(revoked, effect.candidates), context.contained.intersection(revoked)
    return {**found, context.lab.me: own} if own else found


def _merge(context: Context, effect: effects.Merge, inside: Inside) -> MergeOutcome:
    learner, method = context.lab.learner, context.lab.method
    me = Candidate(context.lab.me, learner.samples, -1)
    own = None if effect.adopt else learner.weights()
    with ExitStack() as files:  # opened and closed by the thread that reads them
        strict = context.lab.peer.gates.lineage == "refuse"
        revoked = {a.author: REVOKED for a in effect.candidates if strict and a.author in inside}
        candidates, missing = _open(context, [a for a in effect.candidates if a.author not in revoked], files)
        refused = _judge(context, effect.candidates, candidates)
        taken = [candidate for candidate in candidates if candidate.author not in refused]
        outcome = merge_weights(method, own, me, taken, context.accumulator, context.gates.bounds)
    outcome = MergeOutcome(outcome.included, {**revoked, **missing, **refused, **outcome.skipped}, outcome.norms)
    if effect.last:
        keep_own(context, "own")
    if outcome.included:
        outcome = take(context, outcome, adopt=effect.adopt)
    undone = WORSE in outcome.skipped.values()
    if outcome.included and not undone:
        method.merged(outcome)
        context.gates.accepted(outcome)
    if effect.last:
        _keep_end(context, effect, outcome, undone)
    return outcome


def _judge(context: Context, announcements: Sequence[Announcement], candidates: Sequence[Candidate]) -> dict[str, str]:
    """Author -> "validation", of those that do too badly on this lab's own cases."""
    contents = {a.author: a.content for a in announcements}
    offered = {contents[candidate.author]: candidate for candidate in candidates}
    own = context.metrics.get("own", {})
    found = context.gates.refused(context.lab.learner, own, offered, context.accumulator)
    for author, words in found.items():
        log.info("refusing a model of %s: %s", context.lab.roster.name(author), words)
    return dict.fromkeys(found, VALIDATION)


def _keep_end(context: Context, effect: effects.Merge, outcome: MergeOutcome, undone: bool) -> None:
    """What the run ends with, as `merged`, and its scores; a merge that had to be judged has them already."""
    judged = context.lab.peer.rollback and len(outcome.included) > 1
    if undone:
        context.measured("merged", context.metrics["own"])
        keep_own(context, "merged")
    else:
        if not judged:
            context.measured("merged", context.lab.learner.evaluate())
        keep_merged(context, effect.candidates, outcome, context.metrics["merged"])


def _open(
    context: Context, announcements: Sequence[Announcement], files: ExitStack
) -> tuple[list[Candidate], dict[str, str]]:
    candidates, missing = [], {}
    for a in announcements:
        try:
            descriptor, _ = context.blobs.open(a.content)
        except KeyError:
            missing[a.author] = GONE
        else:
            files.callback(os.close, descriptor)
            candidates.append(Candidate(a.author, a.samples, descriptor, a.steps, a.seconds))
    return candidates, missing


def _describe(context: Context, effect: effects.Merge, outcome: MergeOutcome) -> Merged:
    by_author: dict[str, Announcement] = {a.author: a for a in effect.candidates}
    if context.machine.newest is not None:
        by_author[context.lab.me] = context.machine.newest

    def part(author: str, weight: float = 0.0, reason: str = "") -> Part:
        a, norm = by_author.get(author), outcome.norms.get(author, 0.0)
        if a is None:  # this lab's own model, before its first version
            return Part(samples=context.lab.learner.samples, weight=weight, norm=norm, reason=reason)
        return Part(a.version, a.content, a.samples, weight, norm, reason)

    return Merged(
        time.time(),
        {author: part(author, weight) for author, weight in outcome.included.items()},
        {author: part(author, reason=reason) for author, reason in outcome.skipped.items()},
        effect.below_quorum, effect.adopt, effect.last,
    )  # fmt: skip


def _say(context: Context, merged: Merged, inside: Inside) -> None:
    name = context.lab.roster.name
    mine = {context.lab.me: "own"}

    def contains(author: str) -> str:
        return f" (contains {', '.join(sorted(map(name, inside[author])))}, revoked here)" if author in inside else ""

    included = ", ".join(
        f"{mine.get(a) or name(a)} {part.weight:.2f}{contains(a)}" for a, part in merged.included.items()
    )
    skipped = ", ".join(
        f"{name(a)}{contains(a) if part.reason == REVOKED else f' ({part.reason})'}"
        for a, part in merged.skipped.items()
    )
    what = "adopted" if merged.adopt else "last merge:" if merged.last else "merged"
    log.info("%s %s%s", what, included or "nobody", f"; skipped {skipped}" if skipped else "")


def _note_left_out(context: Context, effect: effects.Merge, merged: Merged) -> None:
    """For `status`: whose model waits outside, until that lab has another."""
    for a in effect.candidates:
        who = context.lab.roster.name(a.author)
        context.notes.pop(f"without {who}", None)
        part = merged.skipped.get(a.author)
        if part is not None and part.reason == REVOKED:
            what = f"version {a.version.counter} contains a lab revoked here and is not merged ([gates] lineage)"
            context.notes[f"without {who}"] = what
