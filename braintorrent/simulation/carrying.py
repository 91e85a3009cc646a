"""What a simulated peer does about what its machine wants: one effect, one handler, as in node/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from braintorrent.errors import RemoteError
from braintorrent.protocol import effects as want
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.notices import Proof
from braintorrent.protocol.steps import Step
from braintorrent.simulation import sizes
from braintorrent.simulation.learner import Blob, Model
from braintorrent.simulation.network import STALL

if TYPE_CHECKING:
    from braintorrent.simulation.peer import Peer

TRIPS = 4  # of a fetch: for the record, TCP, TLS, and the model


def _ask(peer: Peer, ask: want.Ask) -> None:
    world = peer.world
    other = world.peers[ask.peer]
    if peer.twin is not None and ask.message.newest is not None and world.half(ask.peer):
        ask = replace(ask, message=replace(ask.message, newest=peer.twin))
    world.asks += 1
    world.network.exchange(
        peer.line, other.line, sizes.ask(ask.message), partial(other.answer, ask, peer.name),
        partial(peer.do, peer.lives, peer.tell, "asked", ask.peer), world.scenario.policy.ask_deadline,
    )  # fmt: skip


def _fetch(peer: Peer, fetch: want.Fetch) -> None:
    if fetch.pushed:
        peer.pushed[fetch.announcement.content] = fetch
        peer.later(peer.world.push_seconds, _never_pushed, peer, fetch)
        return
    other = peer.world.peers[fetch.source]
    peer.world.network.exchange(
        peer.line, other.line, sizes.REQUEST, partial(other.serve, fetch.announcement.content),
        partial(peer.do, peer.lives, _fetched, peer, fetch), STALL, TRIPS,
    )  # fmt: skip


def _fetched(peer: Peer, fetch: want.Fetch, blob: Blob | RemoteError) -> None:
    announcement = fetch.announcement
    peer.note("fetch", announcement.author, announcement.version, fetch.source, isinstance(blob, RemoteError))
    if isinstance(blob, RemoteError):
        peer.tell("fetch_failed", announcement, fetch.source)
    elif peer.disk.full:
        peer.tell("storage_full", announcement)
    else:
        peer.disk.blobs[announcement.content] = blob
        peer.world.watch.held(peer, announcement, blob)
        peer.tell("fetched", announcement, fetch.source)


def _never_pushed(peer: Peer, fetch: want.Fetch) -> None:
    if peer.pushed.get(fetch.announcement.content) is fetch:
        del peer.pushed[fetch.announcement.content]
        peer.note("not pushed", fetch.announcement.author, fetch.announcement.version, fetch.source)
        peer.tell("fetch_failed", fetch.announcement, fetch.source)


def _push(peer: Peer, push: want.Push) -> None:
    """One model after the other; the digest of a record, which goes with its weights, is that of its weights."""
    _push_next(peer, push.peer, tuple(dict.fromkeys(push.digests)))


def _push_next(peer: Peer, to: str, digests: tuple[str, ...]) -> None:
    other, served = peer.world.peers[to], peer.serve(digests[0]) if digests else None
    if served is None or isinstance(served[0], RemoteError):
        peer.tell("pushed", to)
        return
    content, blob = digests[0], served[0]

    def done(answer: Any) -> None:
        if isinstance(answer, RemoteError):
            peer.tell("pushed", to)
        else:
            _push_next(peer, to, digests[1:])

    peer.world.network.exchange(
        peer.line, other.line, served[1], partial(_take, other, content, blob),
        partial(peer.do, peer.lives, done), peer.world.push_seconds,
    )  # fmt: skip


def _take(peer: Peer, content: str, blob: Blob) -> tuple[Any, float] | None:
    """Bytes that were pushed have arrived: taken if they were wanted."""
    if peer.machine is None:
        return None
    fetch = peer.pushed.pop(content, None)
    if fetch is not None:
        peer.do(peer.lives, _fetched, peer, fetch, blob)
    return True, sizes.REFUSAL


def _merge(peer: Peer, merge: want.Merge) -> None:
    peer.later(peer.lab.merge * peer.slow, _merge_now, peer, merge)


def _merge_now(peer: Peer, merge: want.Merge) -> None:
    disk, world = peer.disk, peer.world
    blobs = [disk.blobs[a.content] for a in merge.candidates]
    others = [(a.author, a.samples, b.model) for b, a in zip(blobs, merge.candidates, strict=True)]
    peer.model = world.learning.merge(peer.index, None if merge.adopt else peer.model, others)
    peer.influence = 0 if merge.adopt else peer.influence
    for blob in blobs:
        peer.influence |= blob.influence
    versions = tuple((a.author, a.version) for a in merge.candidates)
    peer.note("merge", merge.adopt, merge.last, merge.below_quorum, versions)
    world.watch.merged(peer, merge.candidates, blobs)
    if merge.last and disk.newest is not None:
        peer.ended = frozenset([(peer.name, disk.newest.version), *versions])
    peer.tell("merged", [author for author, _ in versions], {})


def _train(peer: Peer, train: want.Train) -> None:
    jitter, newest = peer.world.scenario.jitter, peer.disk.newest
    before = newest.version.counter if newest is not None else 0
    result = peer.world.learning.train(peer.index, peer.model, before, peer.rng)
    peer.later(peer.lab.train * peer.slow * peer.rng.uniform(1 - jitter, 1 + jitter), _trained, peer, result)


def _trained(peer: Peer, result: Callable[[], tuple[Model, float | None]]) -> None:
    if peer.machine is not None and peer.machine.step is Step.TRAINING:
        peer.model, score = result()
        peer.tell("trained", True, score)


def _halt(peer: Peer, halt: want.Halt) -> None:
    peer.later(0.0, peer.tell, "trained", False, None)


def _publish(peer: Peer, publish: want.Publish) -> None:
    peer.later(peer.lab.store, _store, peer, publish)


def _store(peer: Peer, publish: want.Publish) -> None:
    """Durable first; the machine hears of it later, so that a crash can fall between."""
    disk, world = peer.disk, peer.world
    if disk.full:
        peer.tell("published", None)
        return
    announcement = _announcement(peer, publish, "")
    oldest, disk.previous, disk.newest = disk.previous, disk.newest, announcement
    attacker = world.attackers.get(peer.index)
    poisoned = attacker is not None and attacker.how == "poison"
    model = world.learning.poison(peer.model, attacker.scale) if poisoned and attacker else peer.model
    peer.influence |= world.watch.published(peer, announcement)
    blob = disk.blobs[announcement.content] = Blob(model, peer.influence, world.clock.now)
    if attacker is not None and attacker.how == "equivocate":
        peer.twin = _announcement(peer, publish, "twin")
        disk.blobs[peer.twin.content] = blob
    if oldest is not None:
        disk.blobs.pop(oldest.content, None)
    disk.incarnation = max(disk.incarnation, publish.version.incarnation)
    peer.note("publish", publish.version, publish.final, announcement.content)
    peer.later(peer.lab.store, peer.tell, "published", announcement)


def _announcement(peer: Peer, publish: want.Publish, which: str) -> Announcement:
    dice = peer.rng.random()
    content = blake3(f"{peer.name} {publish.version} {peer.model!r} {dice}{which}".encode()).hexdigest()
    return Announcement(
        peer.world.federation, peer.name, publish.version, content, peer.lab.samples, 1, peer.lab.train,
        "0" * 64, content, sizes.RECORD, publish.final,
    )  # fmt: skip


def _forget(peer: Peer, forget: want.Forget) -> None:
    peer.disk.blobs.pop(forget.announcement.content, None)


def _quarantine(peer: Peer, quarantine: want.Quarantine) -> None:
    peer.world.equivocations.append(quarantine)
    peer.note("quarantine", quarantine.first.author, quarantine.first.version)
    pair = sorted((quarantine.first, quarantine.second), key=lambda a: a.content)
    if peer.machine is not None:
        raw = f"{quarantine.first.author} {[a.content for a in pair]}".encode()
        peer.machine.noticed(Proof(pair[0], pair[1], raw))


def _heard(peer: Peer, heard: want.Heard) -> None:
    peer.note("heard", type(heard.notice).__name__, heard.notice.author, heard.source)


def _hand_over(peer: Peer, hand_over: want.HandOver) -> None:
    peer.note("hand over", hand_over.announcement.version)


def _leave(peer: Peer, leave: want.Leave) -> None:
    peer.reason = leave.reason
    peer.note("leave", leave.reason)
    peer.world.watch.went(peer)
    peer.later(peer.world.scenario.policy.ask_deadline, peer.crash)  # serving is finished to a deadline


HANDLERS: dict[type, Callable[[Peer, Any], None]] = {
    want.Ask: _ask, want.Fetch: _fetch, want.Push: _push, want.Merge: _merge, want.Train: _train, want.Halt: _halt,
    want.Publish: _publish, want.Forget: _forget, want.Quarantine: _quarantine, want.Heard: _heard,
    want.HandOver: _hand_over, want.Leave: _leave,
}  # fmt: skip
