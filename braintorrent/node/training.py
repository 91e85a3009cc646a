"""Train: one version's local steps on the worker thread, with a checkpoint every few minutes."""

from __future__ import annotations

import time

from braintorrent.contracts import Trained
from braintorrent.errors import StorageFull
from braintorrent.node.context import Context, log
from braintorrent.protocol import effects
from braintorrent.storage import Merged


async def train(context: Context, effect: effects.Train) -> None:
    """Carry out a Train, and tell the machine whether it completed and how well the result does here."""
    if not effect.alone:
        context.notes.pop("alone", None)
    elif "alone" not in context.notes:
        context.notes["alone"] = "no other peer in reach: training alone; others are merged as soon as they appear"
        log.info(context.notes["alone"])
    if effect.below_quorum:
        context.pending.merge = Merged(time.time(), below_quorum=True)
    context.activity.begin("training")
    trained = await context.in_worker(context.activity.timed, "training", lambda: _train(context))
    if not trained.complete:
        context.tell(lambda now: context.machine.trained(False, None, now))
        return
    context.pending.trained = trained
    context.activity.begin("evaluating")
    metrics = await context.in_worker(context.activity.timed, "evaluating", context.lab.learner.evaluate)
    context.measured("own", metrics)
    score = metrics.get(context.lab.learner.score)
    log.info("trained %d steps, loss %.4f%s", trained.steps, trained.loss, _shown(context, score))
    context.tell(lambda now: context.machine.trained(True, score, now))


def _shown(context: Context, score: float | None) -> str:
    return "" if score is None else f", {context.lab.learner.score} {score:.3f} on own validation cases"


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
    return trained


def keep_checkpoint(context: Context) -> None:
    """Store weights and optimiser inside a version, so that a kill costs minutes, not a night."""
    try:
        context.save_checkpoint()
    except StorageFull as error:
        context.notes["disk"] = str(error)
        log.warning("no checkpoint: %s", error)
