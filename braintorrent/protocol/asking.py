"""What an Ask and its answer say, computed from the state of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from braintorrent.protocol.contacts import NEVER
from braintorrent.protocol.messages import MAX_ADDRESSES, MAX_HOLDS, MAX_TOLD, Announcement, AskMessage, TellMessage

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine


def in_bucket(author: str, bucket: tuple[int, int]) -> bool:
    """Whether an author's hash falls into bucket (index, count): CRC-32 of the id modulo count."""
    index, count = bucket
    return count == 1 or crc32(author.encode()) % count == index


def ask_message(machine: PeerMachine) -> AskMessage:
    """My newest announcement and what I hold. All authors, or above MAX_HOLDS one bucket after the other."""
    authors = list(machine.table.entries)
    count = 1
    while -(-len(authors) // count) > MAX_HOLDS // 2:  # half full on average, so that an uneven bucket fits
        count *= 2
    bucket = (machine.asks % count, count)
    machine.asks += 1
    holds = machine.table.holds(a for a in authors if in_bucket(a, bucket))
    if len(holds) > MAX_HOLDS:
        holds = dict(list(holds.items())[:MAX_HOLDS])
    return AskMessage(machine.newest, holds, bucket, machine.phase)


def settles(message: AskMessage, me: str, newest: Announcement | None) -> bool:
    """Whether the asker holds my newest version; true if I have none."""
    return newest is None or message.holds.get(me) == newest.version


def tell(machine: PeerMachine, message: AskMessage, sender: str, now: float) -> TellMessage:
    """The answer: at most MAX_TOLD announcements newer than what the asker holds, my own first."""
    told: list[Announcement] = []
    if machine.newest is not None and _newer(machine.newest, message):
        told.append(machine.newest)
    others = []
    for author, entry in machine.table.entries.items():
        if entry.held is None or not in_bucket(author, message.bucket):
            continue
        if author == sender:
            # Its own past: a peer that lost its disk learns which version numbers are taken.
            if message.newest is None or entry.held.version > message.newest.version:
                others.append(entry.held)
        elif _newer(entry.held, message):
            others.append(entry.held)
    room = MAX_TOLD - len(told)
    told.extend(others if len(others) <= room else machine.rng.sample(others, room))
    theirs = machine.table.entries.get(sender)
    settled = message.newest is None or (
        theirs is not None and theirs.held is not None and theirs.held.version == message.newest.version
    )
    return TellMessage(tuple(told), machine.phase, settled, _addresses(machine, sender))


def _newer(announcement: Announcement, message: AskMessage) -> bool:
    held = message.holds.get(announcement.author)
    return held is None or announcement.version > held


def _addresses(machine: PeerMachine, sender: str) -> dict[str, tuple[str, ...]]:
    """Where I reached others: only addresses that answered me, so a rumour does not travel."""
    reached = [p for p, c in machine.contacts.of.items() if c.answered > -NEVER and c.failures == 0 and p != sender]
    if len(reached) > MAX_ADDRESSES:
        reached = machine.rng.sample(reached, MAX_ADDRESSES)
    return {p: tuple(machine.contacts.of[p].addresses[:1]) for p in reached}
