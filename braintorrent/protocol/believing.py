"""What a machine makes of an announcement: of another author, or of itself, from a life it does not remember."""

from __future__ import annotations

from typing import TYPE_CHECKING

from braintorrent.protocol.effects import Quarantine
from braintorrent.protocol.messages import Announcement

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine


def note(machine: PeerMachine, announcement: Announcement, source: str) -> None:
    """`source` says that there is this version, and that it can serve it."""
    if announcement.federation != machine.federation:
        return
    if announcement.author == machine.me:
        _heard_of_myself(machine, announcement)
    elif announcement.author in machine.roster:
        entry = machine.table.entry(announcement.author)
        held = entry.held
        contradiction = machine.table.note(announcement, source)
        if contradiction is not None:
            machine.emit(Quarantine(contradiction.first, contradiction.second))
            if held is not None and entry.held is None:
                machine.drop(held)


def _heard_of_myself(machine: PeerMachine, announcement: Announcement) -> None:
    """Others remember a life of mine that this disk does not: go on above it, never beside it."""
    mine = machine.newest
    spoiled = mine is not None and announcement.version == mine.version and announcement.content != mine.content
    if mine is None or announcement.version > mine.version or spoiled:
        machine.incarnation = max(machine.incarnation, announcement.version.incarnation + 1)
