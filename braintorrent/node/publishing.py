"""Publish: store the trained weights and their record, sign, make it durable; only then is it announced."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping

from braintorrent.errors import StorageBusy, StorageFull
from braintorrent.node.context import Context, Pending, kind, log
from braintorrent.node.keeping import keep_published
from braintorrent.protocol import effects
from braintorrent.protocol.messages import Announcement
from braintorrent.records import Parent, Record, encode_record, sign_announcement
from braintorrent.records.record import MAX_METRICS
from braintorrent.storage import write_atomically


async def publish(context: Context, effect: effects.Publish) -> None:
    """Carry out a Publish, and tell the machine whether the version is durable."""
    context.activity.begin("publishing")
    try:
        work = functools.partial(context.blobs.with_room, functools.partial(_publish, context, effect), records=True)
        announcement = await context.in_worker(context.activity.timed, "publishing", work)
    except StorageFull as error:
        context.notes[kind(error)] = str(error)
        log.warning("publishing waits: %s", error)
        full = not isinstance(error, StorageBusy)
        context.tell(lambda now: context.machine.published(None, now, full=full))
        return
    context.notes.pop("disk", None)
    context.holds(announcement)
    previous = context.machine.newest
    context.pending = Pending()
    await context.keep(keep_published, context, announcement, dict(context.metrics.get("own", {})))
    most = f": waiting for the others' last ones, {context.machine.policy.linger:g} s at most"
    last = f", the last{most if context.lab.roster.ids else ''}" if announcement.final else ""
    log.info("published version %d%s", announcement.version.counter, last)
    context.tell(lambda now: context.machine.published(announcement, now))
    await context.keep(context.look_back)
    if previous is not None:
        await context.keep(context.retire_own, previous)


def _publish(context: Context, effect: effects.Publish) -> Announcement:
    lab, trained = context.lab, context.pending.trained
    artifact = context.blobs.put(lab.learner.weights().parts)
    shared = _shared(context.metrics.get("own", {})) if lab.peer.share_metrics else ()
    record = Record(parents=_parents(context), artifacts=(artifact,), metrics=shared)
    data = encode_record(record)
    announcement = sign_announcement(lab.identity, Announcement(
        federation=lab.federation.id, author=lab.me, version=effect.version, content=artifact.digest,
        samples=lab.learner.samples, steps=trained.steps if trained else 0,
        seconds=round(trained.seconds, 3) if trained else 0.0, schema=lab.learner.schema.digest,
        record=context.blobs.put_bytes(data), record_size=len(data), final=effect.final,
    ))  # fmt: skip
    if remembered := lab.method.state():
        write_atomically(lab.state.method, json.dumps(remembered).encode())
    context.ledger.publish(announcement, context.pending.merge)
    context.outdate_checkpoint(announcement)
    return announcement


def _shared(metrics: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Metrics as a record holds them: finite, and with names of letters, digits, dot, dash and underscore."""
    finite = [(name, float(value)) for name, value in metrics.items() if math.isfinite(value)]
    return tuple((re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:64], value) for name, value in finite[:MAX_METRICS])


def _parents(context: Context) -> tuple[Parent, ...]:
    """What this version was trained from: the last merge, or one's own version before, or nothing but the start."""
    merged, before = context.pending.merge, context.machine.newest
    if merged is not None and merged.included:
        return tuple(
            Parent(
                author=author, incarnation=part.version.incarnation, counter=part.version.counter,
                content=part.content or context.lab.start, weight=min(part.weight, 1.0),
            )
            for author, part in merged.included.items()
        )  # fmt: skip
    if before is None:
        return ()
    i, c = before.version
    return (Parent(author=before.author, incarnation=i, counter=c, content=before.content, weight=1.0),)
