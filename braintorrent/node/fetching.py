"""Fetch and verify: the record of an announcement, then its weights, chunk by chunk onto the disk.

A source that can be dialled is asked for the bytes; one that cannot was told what is wanted, and brings them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from braintorrent.errors import BadMessage, RemoteError, StorageFull, Unreachable
from braintorrent.network import limits
from braintorrent.network.conduct import is_fault
from braintorrent.node.context import Context, log
from braintorrent.protocol import effects
from braintorrent.protocol.messages import Announcement
from braintorrent.records import Artifact, decode_record, short
from braintorrent.storage import Incoming

T = TypeVar("T")


async def fetch(context: Context, effect: effects.Fetch) -> None:
    """Carry out a Fetch, and tell the machine what came of it."""
    announcement, source = effect.announcement, effect.source
    machine, wanted = context.machine, (announcement.record, announcement.content)
    if effect.pushed:
        context.inbox.expect(source, wanted)
    try:
        await _fetch(context, effect)
    except StorageFull as error:
        context.notes["disk"] = str(error)
        log.warning("fetching waits: %s", error)
        context.tell(lambda now: machine.storage_full(announcement, now))
    except _Unfit as error:
        reason = str(error)
        log.warning("%s %s refused: %s", _who(context, announcement), announcement.version, reason)
        context.ledger.refuse(announcement.author, announcement.version, reason)
        if not isinstance(error.__cause__, BadMessage) or is_fault(error.__cause__):  # else of another release
            context.conduct.offend(announcement.author, f"unfit: a version whose {reason} is not as agreed")
        context.tell(lambda now: machine.fetch_failed(announcement, source, now, refuse=reason))
    except _Slow:
        log.info("%s %s: %s is slow, and gives way", _who(context, announcement), announcement.version, short(source))
        context.tell(lambda now: machine.gave_way(announcement, source, now))
    except RemoteError as error:
        log.info("%s %s from %s: %s", _who(context, announcement), announcement.version, short(source), error)
        if isinstance(error, BadMessage):
            name = context.lab.roster.name(source)
            context.notes[f"from {name}"] = f"{error.reason}: {error.detail}"
        context.tell(lambda now: machine.fetch_failed(announcement, source, now))
    else:
        context.notes.pop("disk", None)
        context.notes.pop(f"from {context.lab.roster.name(source)}", None)
        log.debug("holds %s %s", _who(context, announcement), announcement.version)
        context.ledger.mark_held(announcement)
        context.holds(announcement)
        context.unfinished.pop(announcement.author, None)
        context.tell(lambda now: machine.fetched(announcement, source, now))
    finally:
        context.inbox.close(source, wanted)


class _Unfit(Exception):
    """The author's signed statement itself is at fault, whoever serves it. The text is the reason."""


class _Slow(Exception):
    """Others wait for the place of this fetch."""


def _who(context: Context, announcement: Announcement) -> str:
    return context.lab.roster.name(announcement.author)


def give_up(context: Context, author: str) -> None:
    """The disk may have back what was begun of an author and not finished. Touches the disk.

    So the bytes of one author are those of a version in hand and one in flight, however many it announces.
    """
    begun = context.unfinished.pop(author, None)
    if begun is not None:
        for digest in {begun.content, begun.record} - context.ledger.needed() - set(context.ledger.records()):
            context.blobs.remove(digest)


async def _fetch(context: Context, effect: effects.Fetch) -> None:
    blobs, announcement, author = context.blobs, effect.announcement, effect.announcement.author
    if context.unfinished.get(author, announcement) != announcement:
        await context.in_thread(give_up, context, author)
    context.unfinished[author] = announcement
    artifact = await _record(context, effect)
    context.inbox.close(effect.source, [announcement.record])  # it may have been here already
    if blobs.keep(artifact.digest):
        return
    incoming = await context.in_thread(blobs.receive, artifact)
    try:
        await _in_turn(context, _weights(context, effect, artifact, incoming), lambda: incoming.offset)
    except BaseException:
        await context.in_thread(incoming.abort)
        raise
    await context.in_thread(incoming.commit)


async def _record(context: Context, effect: effects.Fetch) -> Artifact:
    """The weights' artifact, once the record says what the announcement and the agreement say."""
    announcement = effect.announcement
    schema = context.lab.learner.schema
    if announcement.schema != schema.digest:
        raise _Unfit("schema")
    try:
        data = await context.in_thread(context.blobs.read, announcement.record, announcement.record_size)
    except ValueError:
        raise _Unfit("record") from None  # it names bytes that are here, and claims another size
    except KeyError:
        data = await _in_turn(context, _whole(context, effect, announcement.record, announcement.record_size))
    try:
        artifact = decode_record(data).weights
    except BadMessage as error:
        raise _Unfit("record") from error
    if artifact.size != schema.size or artifact.digest != announcement.content:
        raise _Unfit("record")
    await context.in_thread(context.blobs.put_bytes, data)
    return artifact


async def _in_turn(
    context: Context, attempt: Coroutine[Any, Any, T], received: Callable[[], int] = lambda: 0
) -> T:  # fmt: skip
    """The attempt, which is ended as _Slow when it is slow while others wait. received: bytes so far."""
    running = asyncio.create_task(attempt)
    try:
        while not running.done():
            before = received()
            await asyncio.wait([running], timeout=limits.SLOW_SECONDS)
            slow = received() - before < limits.SLOW_BYTES_PER_SECOND * limits.SLOW_SECONDS
            if slow and not running.done() and context.machine.fetches.waiting(context.now):
                raise _Slow
        return running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _whole(context: Context, effect: effects.Fetch, record: str, size: int) -> bytes:
    if effect.pushed:
        return await context.inbox.take_small(effect.source, record, size, context.machine.policy.ask_deadline)
    return await somewhere(
        context, effect.source, lambda address: context.client.fetch_small(effect.source, address, record, size)
    )


async def _weights(context: Context, effect: effects.Fetch, artifact: Artifact, incoming: Incoming) -> None:
    source, digest, size = effect.source, artifact.digest, artifact.size
    if effect.pushed:
        sink = _After(incoming, incoming.rewind())
        await context.inbox.take(source, digest, size, sink, context.machine.policy.ask_deadline)
    else:
        await somewhere(context, source, lambda address: context.client.fetch(
            source, address, digest, size, incoming, incoming.rewind()
        ))  # fmt: skip


class _After:
    """The sink of a blob that is sent from its beginning, though its first `skip` bytes are here."""

    def __init__(self, sink: Incoming, skip: int) -> None:
        self._sink, self._skip = sink, skip

    def write(self, data: memoryview) -> None:
        here = min(self._skip, len(data))
        self._skip -= here
        self._sink.write(data[here:])


async def somewhere(context: Context, source: str, attempt: Callable[[str], Awaitable[T]]) -> T:
    """The attempt at the first of the source's addresses that answers."""
    contact = context.machine.contacts.of.get(source)
    trouble: RemoteError = Unreachable("no address known")
    for address in list(contact.addresses) if contact else []:
        try:
            return await attempt(address)
        except Unreachable as error:
            trouble = error
    raise trouble
