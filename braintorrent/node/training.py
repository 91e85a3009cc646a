"""Train: one version's local steps on the worker thread, with a checkpoint every few minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from braintorrent.contracts import Trained
from braintorrent.errors import Diverged, StorageFull
from braintorrent.learning.opening import read_weights
from braintorrent.node.asking import alone
from braintorrent.node.context import Context, log
from braintorrent.node.restoring import load_version
from braintorrent.protocol import effects
from braintorrent.storage import Merged

UNJUDGED = "validation"  # the note of a lab that has no score
DIVERGED = "diverged"  # training from a merge with it gave no finite loss


async def train(context: Context, effect: effects.Train) -> None:
    """Carry out a Train, and tell the machine whether it completed and how well the result does here."""
    if not effect.alone:
        context.notes.pop("alone", None)
    elif context.notes.get("alone") != (why := alone(context)):
        context.notes["alone"] = why
        log.info(why)
    if effect.below_quorum:
        context.pending.merge = Merged(time.time(), below_quorum=True)
    context.activity.begin("training")
    try:
        trained = await context.in_worker(context.activity.timed, "training", lambda: _train(context))
    except Diverged as error:
        others = [a for a in (context.pending.merge.included if context.pending.merge else {}) if a != context.lab.me]
        if not others:
            raise  # this lab's own doing
        _refuse_merged(context, others, str(error))
        await context.in_worker(_reload_own, context)
        await train(context, effect)
        return
    if not trained.complete:
        context.tell(lambda now: context.machine.trained(False, None, now))
        return
    context.pending.trained = trained
    context.activity.begin("evaluating")
    metrics = await context.in_worker(context.activity.timed, "evaluating", context.lab.learner.evaluate)
    context.measured("own", metrics)
    if not math.isnan(trained.loss):
        context.board.add(context.machine.counter + 1, {"training/loss": trained.loss})
    score = metrics.get(context.lab.learner.score)
    _warn_without_score(context, metrics)
    loss = "" if math.isnan(trained.loss) else f", loss {trained.loss:.4f}"
    log.info("trained %d steps%s%s", trained.steps, loss, _shown(context, score))
    context.tell(lambda now: context.machine.trained(True, score, now))


def _shown(context: Context, score: float | None) -> str:
    return "" if score is None else f", {context.lab.learner.score} {score:.3f} on own validation cases"


def _warn_without_score(context: Context, metrics: Mapping[str, float]) -> None:
    name = context.lab.learner.score
    if name in metrics:
        context.notes.pop(UNJUDGED, None)
    elif UNJUDGED not in context.notes:
        what = f"the validation cases give no {name}" if metrics else "this lab has no validation cases"
        context.notes[UNJUDGED] = f"{what}: no best model is kept, and no stop rule on scores is ever met"
        log.warning(context.notes[UNJUDGED])


def _refuse_merged(context: Context, others: list[str], why: str) -> None:
    """A finite but absurd model got into the merge: refuse all that was merged, and say so."""
    merged, machine, roster = context.pending.merge, context.machine, context.lab.roster
    assert merged is not None
    log.warning("undoing the merge with %s: %s", ", ".join(map(roster.name, others)), why)
    for author in others:
        context.ledger.refuse(author, merged.included[author].version, DIVERGED)
        held = machine.table.entry(author).held
        if held is not None and held.version == merged.included[author].version:
            machine.table.refuse(held, DIVERGED)
            machine.drop(held)
    parts = {a: replace(part, weight=0.0, reason=DIVERGED) for a, part in merged.included.items() if a in others}
    context.pending.merge = Merged(time.time(), skipped={**merged.skipped, **parts})
    context.pump()


def _reload_own(context: Context) -> None:
    """One's own newest weights, or those all labs began from, back into the learner."""
    lab, newest = context.lab, context.machine.newest
    if newest is not None:
        load_version(lab, context.blobs, newest.content)
    else:
        lab.learner.load(read_weights(lab.state.models / "start.safetensors", lab.learner.schema))


def _train(context: Context) -> Trained:
    every, saved = context.lab.peer.timing.checkpoint_every, time.monotonic()

    def progress(step: int, steps: int) -> None:
        nonlocal saved
        context.activity.done, context.activity.total = step, steps
        if step < steps and time.monotonic() - saved >= every:
            keep_checkpoint(context)
            saved = time.monotonic()

    trained = context.lab.learner.train(context.halt.is_set, progress)
    if not trained.complete:
        keep_checkpoint(context)
        context.halted = True
    return trained


def keep_checkpoint(context: Context, inside: bool = True) -> None:
    """Store weights and optimiser, so that a kill costs minutes, not a night. inside: in the middle of a version."""
    try:
        context.save_checkpoint(inside or context.pending.merge is not None)
    except StorageFull as error:
        context.notes["disk"] = str(error)
        log.warning("no checkpoint: %s", error)
