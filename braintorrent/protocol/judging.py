"""What a machine asks of its state.

May I stop looking for a model? Is everybody done with everybody? And when does time alone change an answer?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from braintorrent.protocol.contacts import NEVER, Contact
from braintorrent.protocol.steps import AT_WORK, Step

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine

GIVEN_UP = 2  # asks failed in a row, after which who is stopped waits for that peer no longer: one alone may get lost


def sought(machine: PeerMachine, now: float) -> bool:
    """Whether looking for a model to start from has come to an end."""
    fresh, fetches = machine.table.fresh, machine.fetches
    if now >= machine.deadline:
        return machine.newest is not None or bool(fresh) or not fetches.flying or now >= _patience_ends(machine)
    if fetches.coming(now):
        return False
    answered = len(machine.roster) > 1 and _all_others(machine, lambda contact: contact.answered > -NEVER)
    if answered and not machine.table.offered:
        return True
    everyone = machine.policy.fanout is None
    awaited = (c for c in machine.contacts.of.values() if c.addresses and (c.asking or everyone))
    return bool(fresh) and all(c.attempted > -NEVER for c in awaited)


def _patience_ends(machine: PeerMachine) -> float:
    """When a fetch that was under way as the search ended is waited for no longer."""
    return machine.deadline + machine.policy.alone_after + machine.policy.ask_deadline


def may_fetch(machine: PeerMachine, now: float) -> bool:
    """Whether fetches may begin: one that stops looking for a model waits for what is under way, and no more."""
    late = now >= machine.deadline and machine.step is Step.SEEKING
    return not (late or machine.stopping or machine.step is Step.LEFT)


def own_deadline(machine: PeerMachine) -> float:
    """When the work lane looks again, though nothing happens."""
    now, deadline = machine.now, machine.deadline
    if machine.step in AT_WORK:
        return deadline
    if machine.step is Step.READY:
        return machine.wake if machine.wake > now else deadline
    if machine.step is Step.SEEKING and now >= deadline:
        return _patience_ends(machine)
    if machine.step in (Step.LINGERING, Step.LEAVING):
        return min(deadline, now + machine.policy.ask_every)  # presence fades without an event
    return deadline


def all_settled(machine: PeerMachine, now: float) -> bool:
    """Every present peer is final, lacks nothing that is here, and nothing of theirs is lacking here.

    A version that was refused is not lacking; who was not asked in this step is given time to appear.
    """
    policy, contacts = machine.policy, machine.contacts
    appeared = now >= max(machine.entered + policy.ask_every, machine.started + policy.alone_after)
    if not appeared and not _all_others(machine, lambda contact: contact.attempted > machine.entered):
        return False
    present = (item for item in contacts.of.items() if contacts.is_present(item[1], now))
    return all(_settled(machine, *item, now) for item in present) and not machine.fetches.coming(now, everyone=True)


def handed_over(machine: PeerMachine, now: float) -> bool:
    """Whether a peer that is stopped may go: another holds its newest version, or nobody is here who could take it."""
    contacts = machine.contacts
    answering = (c for c in contacts.of.values() if c.failures < GIVEN_UP or c.calls_only)
    return held_elsewhere(machine, now) or not any(contacts.is_present(contact, now) for contact in answering)


def held_elsewhere(machine: PeerMachine, now: float) -> bool:
    """Whether somebody present is known to hold the newest version."""
    newest, contacts = machine.newest, machine.contacts
    if newest is None:
        return False
    holders = (contact for contact in contacts.of.values() if contact.holds >= newest.version)
    return any(contacts.is_present(contact, now) for contact in holders)


def _settled(machine: PeerMachine, peer: str, contact: Contact, now: float) -> bool:
    mine = machine.newest is None or contact.settled == machine.newest.version
    return contact.phase == "final" and mine and not machine.fetches.hoped_for(peer, now)


def _all_others(machine: PeerMachine, holds: Callable[[Contact], bool]) -> bool:
    """Whether it holds for everyone on the roster; ends at the first for whom it does not."""
    contacts = (machine.contacts.of.get(peer) for peer in machine.roster if peer != machine.me)
    return all(contact is not None and holds(contact) for contact in contacts)
