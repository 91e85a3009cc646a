"""What a machine makes of an announcement, of another author or of its own former life, and of a notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from braintorrent.protocol.effects import Heard, Quarantine
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.notices import Notice, Proof, Rotation

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine


def note(machine: PeerMachine, announcement: Announcement, source: str) -> None:
    """`source` says that there is this version, and that it can serve it."""
    if announcement.federation != machine.federation:
        return
    if announcement.author == machine.me:
        _heard_of_myself(machine, announcement)
    elif announcement.author in machine.roster:
        contradiction = machine.table.note(announcement, source)
        if contradiction is not None:
            machine.emit(Quarantine(contradiction.first, contradiction.second))
            if contradiction.dropped is not None:
                machine.drop(contradiction.dropped)


def hear(machine: PeerMachine, notice: Notice, source: str) -> None:
    """`source` passes on what a lab says of a lab."""
    if notice.federation != machine.federation or not machine.notices.answered(notice, machine.roster):
        return
    if machine.notices.add(notice):
        if isinstance(notice, Rotation):
            machine.notices.keep_of(machine.roster)  # it may have taken the place of one in the middle of a chain
        machine.emit(Heard(notice, source))
        if isinstance(notice, Proof):
            note(machine, notice.first, source)
            note(machine, notice.second, source)


def _heard_of_myself(machine: PeerMachine, announcement: Announcement) -> None:
    """Others remember a life of mine that this disk does not: go on above it, never beside it."""
    mine = machine.newest
    spoiled = mine is not None and announcement.version == mine.version and announcement.content != mine.content
    if mine is None or announcement.version > mine.version or spoiled:
        machine.incarnation = max(machine.incarnation, announcement.version.incarnation + 1)
