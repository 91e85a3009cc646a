"""Two questions a machine asks of its state: may I stop looking for a model, and is everybody done with everybody?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from braintorrent.protocol.contacts import NEVER, Contact

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine


def sought(machine: PeerMachine, now: float) -> bool:
    """Whether looking for a model to start from has come to an end."""
    fresh, fetches = machine.table.fresh, machine.fetches
    if now >= machine.deadline and (machine.newest is not None or fresh or not fetches.flying):
        return True
    if fetches.coming():
        return False
    if len(machine.roster) > 1 and _all_others(machine, lambda contact: contact.answered > -NEVER):
        return True
    everyone = machine.policy.fanout is None
    awaited = (c for c in machine.contacts.of.values() if c.addresses and (c.asking or everyone))
    return bool(fresh) and all(c.attempted > -NEVER for c in awaited)


def all_settled(machine: PeerMachine, now: float) -> bool:
    """Every present peer is final, lacks nothing that is here, and nothing of theirs is lacking here.

    A version that was refused is not lacking; who was not asked in this step is given time to appear.
    """
    policy, contacts = machine.policy, machine.contacts
    appeared = now >= max(machine.entered + policy.ask_every, machine.started + policy.alone_after)
    if not appeared and not _all_others(machine, lambda contact: contact.attempted > machine.entered):
        return False
    present = (item for item in contacts.of.items() if contacts.is_present(item[1], now))
    return all(_settled(machine, *item) for item in present) and not machine.fetches.coming(everyone=True)


def _settled(machine: PeerMachine, peer: str, contact: Contact) -> bool:
    mine = machine.newest is None or contact.settled == machine.newest.version
    return contact.phase == "final" and mine and peer not in machine.table.offered


def _all_others(machine: PeerMachine, holds: Callable[[Contact], bool]) -> bool:
    """Whether it holds for everyone on the roster; ends at the first for whom it does not."""
    contacts = (machine.contacts.of.get(peer) for peer in machine.roster if peer != machine.me)
    return all(contact is not None and holds(contact) for contact in contacts)
