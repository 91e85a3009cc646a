"""A simulated peer over all its lives: a PeerMachine, on a disk that outlives crashes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from braintorrent.errors import Gone, Refused, RemoteError, Unreachable
from braintorrent.protocol import effects as want
from braintorrent.protocol.machine import PeerMachine
from braintorrent.protocol.messages import Announcement, TellMessage, common
from braintorrent.protocol.steps import Restored, Step
from braintorrent.protocol.version import Version, next_incarnation
from braintorrent.simulation import sizes
from braintorrent.simulation.carrying import HANDLERS
from braintorrent.simulation.disk import Disk
from braintorrent.simulation.learner import Lab
from braintorrent.simulation.network import Line

if TYPE_CHECKING:
    from braintorrent.simulation.world import World

NEVER = float("inf")


class Peer:
    """Down when `machine` is None."""

    def __init__(self, index: int, line: Line, lab: Lab, world: World) -> None:
        self.index, self.name, self.line, self.lab, self.world = index, line.name, line, lab, world
        self.disk, self.backup = Disk(), Disk()
        self.rng = Random(f"{world.seed}/{self.name}")
        self.machine: PeerMachine | None = None
        self.lives = 0
        self.model = world.learning.start  # all start from the same weights
        self.influence = 0  # of watched publishes on the model
        self.slow = 1.0  # times as long as usual
        self.protocols = world.scenario.protocols  # lowest and highest that it speaks
        self.ended: frozenset[tuple[str, Version]] = frozenset()  # what the last merge was made of
        self.reason = ""  # of the last leave
        self.pushed: dict[str, want.Fetch] = {}  # content digest -> what somebody is to push
        self.twin: Announcement | None = None  # an equivocator's other content of its newest version
        self._paused: list[tuple[Any, ...]] | None = None  # what came meanwhile
        self._timer = NEVER

    # ------------------------------------------------------------- lives

    def start(self) -> None:
        """A new life on this disk."""
        world, disk = self.world, self.disk
        now = world.clock.now
        self.lives += 1
        disk.incarnation = next_incarnation(disk.incarnation, world.unix_ms(), 0)
        for entry in disk.entries.values():
            entry.offers = ()  # what was only offered is not on a disk
        newest = disk.blobs[disk.newest.content] if disk.newest else None
        self.model, self.influence = (newest.model, newest.influence) if newest else (world.learning.start, 0)
        restored = Restored(disk.incarnation, disk.newest, disk.entries)
        policy = world.scenario.policy
        self.machine = PeerMachine(self.name, world.federation, world.roster, policy, self.rng, restored, now)
        self._timer, self.ended, self.reason, self.twin = NEVER, frozenset(), "", None
        self.pushed.clear()
        self.note("start", disk.incarnation)
        world.watch.came(self)
        self.settle()

    def crash(self) -> None:
        """Kill -9: whatever is not on the disk is gone."""
        if self.machine is not None:
            self.note("crash")
            self.machine, self._paused = None, None
            self.world.network.hang_up(self.line)
            self.world.watch.went(self)

    def stop(self) -> None:
        """A person ends the process."""
        if self.machine is not None:
            self.machine.stop(self.world.clock.now)
            self.settle()

    def lose_disk(self) -> None:
        """Only while down: the next life begins with nothing but the key."""
        self.disk = Disk()
        self.world.watch.lost(self)
        self.note("lost disk")

    def back_up(self) -> None:
        """Remember the disk as it is."""
        self.backup = self.disk.copy()

    def restore_backup(self) -> None:
        """Only while down: the disk is as it was when it was backed up."""
        self.disk = self.backup.copy()
        self.note("old copy", self.disk.incarnation)

    def pause(self) -> None:
        """The process is stopped where it is; it answers nobody."""
        if self.machine is not None and self._paused is None:
            self._paused = []
            self.world.network.silence(self.line, True)
            self.note("pause")

    def resume(self) -> None:
        """It goes on, with all that waited for it."""
        waiting, self._paused = self._paused, None
        self.world.network.silence(self.line, False)
        for call in waiting or ():
            self.do(*call)

    @property
    def present(self) -> bool:
        """Running, and not gone from the federation."""
        return self.machine is not None and self.machine.step is not Step.LEFT

    # ------------------------------------------------------------- what others reach

    def sighted(self, other: str) -> None:
        """Discovery saw `other`."""
        if self.machine is not None:
            self.machine.sighted(other, other, self.world.clock.now)
            self.settle()

    def answer(self, ask: want.Ask, sender: str) -> tuple[TellMessage | RemoteError, float] | None:
        """Serve an ask, and the bytes of the answer. The hello before a first ask says where the sender is."""
        machine = self.machine
        if machine is None or self._paused is not None:
            return self._nobody()
        if common(self.protocols, self.world.peers[sender].protocols) is None:
            return Refused(f"{self.name} speaks other protocols", reason="protocol"), sizes.REFUSAL
        contact = machine.contacts.of.get(sender)
        if contact is None or not contact.addresses:
            machine.sighted(sender, sender, self.world.clock.now)
        reply = machine.received(ask.message, sender, self.world.clock.now)
        self.settle()
        if self.twin is not None and self.world.half(sender):
            told = (self.twin if a == self.disk.newest else a for a in reply.announcements)
            reply = replace(reply, announcements=tuple(told))
        return reply, sizes.tell(reply)

    def serve(self, content: str) -> tuple[Any, float] | None:
        """Serve a model and its record, and their bytes."""
        if self.machine is None or self._paused is not None:
            return self._nobody()
        blob = self.disk.blobs.get(content)
        if blob is None:
            return Gone(f"{self.name} has no {content[:8]}"), sizes.REFUSAL
        return blob, sizes.model(self.world.scenario.model_bytes)

    def _nobody(self) -> tuple[RemoteError, float] | None:
        """No answer of a process that is paused; of one that is gone its machine says so at once."""
        return (Unreachable(f"nobody listens at {self.name}"), 0.0) if self.machine is None else None

    # ------------------------------------------------------------- the machine

    def settle(self) -> None:
        """Carry out what the machine wants and set the one timer."""
        machine, clock = self.machine, self.world.clock
        while machine is not None and (effects := machine.effects()):
            for effect in effects:
                HANDLERS[type(effect)](self, effect)
            machine = self.machine
        deadline = machine.next_deadline() if machine is not None else None
        if deadline is None:
            self._timer = NEVER
        elif deadline < self._timer:  # a timer that is too early looks again and sleeps on
            if deadline <= clock.now:
                raise RuntimeError(f"{self.name} would wake at {deadline}, now is {clock.now}: a busy loop")
            self._timer = deadline
            clock.at(deadline, self.do, self.lives, self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        machine, now = self.machine, self.world.clock.now
        if machine is not None and deadline == self._timer:
            self._timer = NEVER
            due = machine.next_deadline()
            if due is not None and due <= now:
                machine.tick(now)

    def tell(self, event: str, *args: Any) -> None:
        """Report to the machine."""
        getattr(self.machine, event)(*args, self.world.clock.now)

    def do(self, life: int, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` if it is still this life, once it is not paused."""
        if self.machine is None or life != self.lives:
            return
        if self._paused is not None:
            self._paused.append((life, call, *args))
            return
        call(*args)
        self.settle()

    def later(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` after `delay` in this life, or never."""
        self.world.clock.after(delay, self.do, self.lives, call, *args)

    def note(self, event: str, *details: Any) -> None:
        """One line of the trace."""
        self.world.trace.add(round(self.world.clock.now, 6), self.name, event, *details)
