"""What an Ask and its answer say, computed from the state of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from braintorrent.protocol.judging import may_fetch
from braintorrent.protocol.messages import MAX_HOLDS, MAX_TOLD, Announcement, AskMessage, TellMessage
from braintorrent.protocol.steps import Step
from braintorrent.protocol.version import NOTHING, Version

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine

ADDRESSES_TOLD = 8  # a few at random: they spread by doubling, and all of them would be most of an answer's bytes


def ask_message(machine: PeerMachine, peer: str) -> AskMessage:
    """My newest announcement and what I hold: of `peer` itself, and of one bucket of authors after the other."""
    buckets = machine.table.buckets
    bucket = (machine.asks % buckets.count, buckets.count)
    machine.asks += 1
    holds = dict(islice(buckets.inside(bucket).items(), MAX_HOLDS - 1))
    line = machine.table.entries.get(peer)
    if line is not None and line.held is not None:
        holds[peer] = line.held.version
    return AskMessage(machine.newest, holds, bucket, machine.phase, machine.notices.digest)


def tell(machine: PeerMachine, message: AskMessage, sender: str, now: float) -> TellMessage:
    """The answer: at most MAX_TOLD announcements newer than what the asker holds, my own first."""
    told: list[Announcement] = []
    if machine.newest is not None and machine.newest.version > message.holds.get(machine.me, NOTHING):
        told.append(machine.newest)
    entries = machine.table.entries
    # Its own past, in any bucket: a peer that lost its disk learns which version numbers are taken.
    past = entries[sender].held if sender in entries else None
    if past is not None and (message.newest is None or past.version > message.newest.version):
        told.append(past)
    holds, inside = message.holds, machine.table.buckets.inside(message.bucket)
    others = [
        held
        for author, version in inside.items()
        if version > holds.get(author, NOTHING) and author != sender and (held := entries[author].held) is not None
    ]
    room = MAX_TOLD - len(told)
    told.extend(others if len(others) <= room else machine.rng.sample(others, room))
    notices = machine.notices.drawn(machine.rng) if message.notices != machine.notices.digest else ()
    return TellMessage(
        tuple(told), machine.phase, _settled(machine, message, sender, inside), _addresses(machine, sender),
        _wants(machine, sender, now), notices,
    )  # fmt: skip


def _wants(machine: PeerMachine, sender: str, now: float) -> tuple[str, ...]:
    """What the asker, which cannot be dialled, is to push: of each model the record, then the weights."""
    if not may_fetch(machine, now):
        return ()
    wanted = machine.fetches.ask_for(sender, now, everyone=machine.step is Step.LINGERING)
    for fetch in wanted:
        machine.emit(fetch)
    return tuple(digest for f in wanted for digest in (f.announcement.record, f.announcement.content))


def _settled(machine: PeerMachine, message: AskMessage, sender: str, inside: Mapping[str, Version]) -> bool:
    """Whether nothing that the asker published or holds is lacking here; to one that is leaving: whether it may go.

    inside: what is held of authors in the bucket that the ask speaks of.
    """
    lacks, mine = machine.table.lacks, message.newest
    if message.phase == "leaving":  # others hold whatever it holds but its own version; refused is not held
        line = machine.table.entries.get(sender)
        return mine is None or (line is not None and line.held is not None and line.held.version >= mine.version)
    if mine is not None and lacks(sender, mine.version):
        return False
    return not any(  # of most authors, the very same version is held
        inside.get(author) != version and author in machine.roster and author != machine.me and lacks(author, version)
        for author, version in message.holds.items()
    )


def _addresses(machine: PeerMachine, sender: str) -> dict[str, tuple[str, ...]]:
    """Where I reached others: only addresses that answered me, so a rumour does not travel."""
    told, of = dict[str, tuple[str, ...]](), machine.contacts.of
    for peer in machine.contacts.some(ADDRESSES_TOLD):
        contact = of[peer]
        if contact.works and peer != sender:
            told[peer] = contact.addresses[:1]
    return told
