"""The work lane: what a machine does next with its own model, once it may.

SEEKING, READY, MERGING, TRAINING, PUBLISHING, and LINGERING, CLOSING or LEAVING, LEFT at the end; machine.py draws
the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from braintorrent.protocol import effects as want
from braintorrent.protocol.contacts import NEVER
from braintorrent.protocol.judging import all_settled, handed_over, held_elsewhere, sought
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.steps import AT_WORK, Step
from braintorrent.protocol.version import Version

if TYPE_CHECKING:
    from braintorrent.protocol.machine import PeerMachine


def go_on(machine: PeerMachine, now: float) -> None:
    """Whatever the present step was waiting for may be there."""
    if machine.step in AT_WORK:
        return
    if machine.step is Step.SEEKING and sought(machine, now):
        _begin(machine, now)
    elif machine.step is Step.READY and now >= machine.wake:
        _merge_or_train(machine, now)
    elif machine.step is Step.PUBLISHING and now >= machine.deadline and machine.pending is not None:
        machine.deadline = NEVER
        version = Version(machine.incarnation, machine.counter + 1)  # others may have spoken of a later life meanwhile
        machine.pending = replace(machine.pending, version=version)
        machine.emit(machine.pending)
    elif machine.step is Step.LINGERING and (now >= machine.deadline or all_settled(machine, now)):
        _close(machine, now)
    elif machine.step is Step.LEAVING and (now >= machine.deadline or handed_over(machine, now)):
        leave(machine, now, "stopped")


def _begin(machine: PeerMachine, now: float) -> None:
    candidates = _drawn(machine)
    if machine.newest is None and candidates:
        _merge(machine, want.Merge(candidates, adopt=True), Step.MERGING, now)
    elif machine.newest is None:
        train(machine, now)
    else:
        enter(machine, Step.READY, now, now + machine.policy.patience)
        _merge_or_train(machine, now)


def _merge_or_train(machine: PeerMachine, now: float) -> None:
    below = len(machine.table.fresh) < machine.policy.quorum
    if below and now < machine.deadline:
        return
    candidates = _drawn(machine)
    if candidates:
        _merge(machine, want.Merge(candidates, below_quorum=below), Step.MERGING, now)
    else:
        train(machine, now, below_quorum=below)


def _drawn(machine: PeerMachine) -> tuple[Announcement, ...]:
    return machine.table.drawn(machine.policy.max_merge, machine.rng, everyone=machine.policy.everyone)


def _merge(machine: PeerMachine, merge: want.Merge, step: Step, now: float) -> None:
    machine.merging = {a.author: a for a in merge.candidates}
    enter(machine, step, now, NEVER)
    machine.emit(merge)


def conclude(
    machine: PeerMachine, included: Iterable[str], skipped: Mapping[str, str], worse: Iterable[str],
    passed: Iterable[str],
) -> None:  # fmt: skip
    """Write down what became of everyone in the merge that is done; see PeerMachine.merged."""
    merging, machine.merging = machine.merging, {}
    table = machine.table
    here = {author: a for author, a in merging.items() if author in table.entries}
    for author in here.keys() & set(included):
        table.merge(here[author])
    for author in here.keys() & skipped.keys():
        table.refuse(here[author], skipped[author])
    for author in here.keys() & set(worse):
        table.set_aside(here[author])
    for author in here.keys() & set(passed):
        table.pass_over(here[author])
    for author, announcement in merging.items():
        if author not in here or table.entries[author].held != announcement:
            machine.drop(announcement)  # superseded, refused or struck off meanwhile


def train(machine: PeerMachine, now: float, *, below_quorum: bool = False) -> None:
    """One version's local steps."""
    enter(machine, Step.TRAINING, now, NEVER)
    silent = all(c.heard == -NEVER for c in machine.contacts.of.values()) and not machine.table.newest_held()
    machine.emit(want.Train(silent and machine.started < now and machine.looked <= now, below_quorum))


def publish(machine: PeerMachine, now: float) -> None:
    """What was trained becomes the next version."""
    counter = machine.counter + 1
    machine.pending = want.Publish(Version(machine.incarnation, counter), stop_rule(machine, counter, now))
    enter(machine, Step.PUBLISHING, now, NEVER)
    machine.emit(machine.pending)


def rest(machine: PeerMachine, now: float) -> None:
    """A version is published: on to the next, at once or, under the poisson cadence, a while later."""
    enter(machine, Step.READY, now, now + machine.policy.patience)
    mean = machine.policy.mean_interval
    machine.wake = now if mean is None else now + machine.rng.expovariate(1 / mean)


def linger(machine: PeerMachine, now: float) -> None:
    """The stop rule is met: wait for the others."""
    machine.table.want_all()  # the last merge takes everyone
    enter(machine, Step.LINGERING, now, now + machine.policy.linger)


def _close(machine: PeerMachine, now: float) -> None:
    """The last act: one more merge, with the newest of everyone, no training after it."""
    everyone = tuple(machine.table.newest_held())
    if everyone:
        _merge(machine, want.Merge(everyone, last=True), Step.CLOSING, now)
    else:
        leave(machine, now, "finished")


def depart(machine: PeerMachine, now: float) -> None:
    """A person wants it to end: as soon as another holds its newest version."""
    machine.stopping = True
    if machine.newest is None or handed_over(machine, now):
        leave(machine, now, "stopped")
        return
    enter(machine, Step.LEAVING, now, now + machine.policy.hand_over)
    machine.emit(want.HandOver(machine.newest))
    for peer in machine.contacts.present(now):
        machine.contacts.ask_now(peer, now)


def leave(machine: PeerMachine, now: float, reason: str) -> None:
    """Say farewell, and want nothing more."""
    machine.stopping = True  # so that the farewell says "leaving"
    for peer, contact in machine.contacts.of.items():  # one that is leaving itself may be waiting for this peer
        if contact.addresses and not contact.parting and machine.contacts.is_near(contact, now):
            machine.ask(peer)
    stopped = reason == "stopped" and machine.newest is not None
    machine.emit(want.Leave(reason, alone=stopped and not held_elsewhere(machine, now)))
    enter(machine, Step.LEFT, now, NEVER)


def enter(machine: PeerMachine, step: Step, now: float, deadline: float) -> None:
    """A new step begins; it looks again at `deadline`."""
    machine.step, machine.entered, machine.deadline = step, now, deadline


def stop_rule(machine: PeerMachine, counter: int, now: float) -> bool:
    """Whether so many versions, or what else the policy says, are enough."""
    seconds = machine.elapsed + now - machine.started
    return machine.policy.stop.met(counter, seconds, machine.best, machine.since_best)
