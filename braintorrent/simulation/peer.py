"""A simulated peer: a PeerMachine, a disk that outlives crashes, and learning reduced to one number.

One effect has one handler, as in node/. The model of a lab is a number x; training moves it towards the
lab's own optimum c, the minimum of (x - c)^2 / 2, so that the federated optimum is the weighted mean of c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from braintorrent.errors import Gone, RemoteError, Unreachable
from braintorrent.protocol import effects as want
from braintorrent.protocol.machine import PeerMachine
from braintorrent.protocol.messages import Announcement, TellMessage
from braintorrent.protocol.notices import Proof
from braintorrent.protocol.steps import Restored, Step
from braintorrent.protocol.table import Entry
from braintorrent.protocol.version import Version, next_incarnation

if TYPE_CHECKING:
    from braintorrent.simulation.world import World

EPOCH_MS = 1_700_000_000_000  # unix time of virtual second 0


@dataclass(frozen=True)
class Lab:
    """What one lab's learning is like. Times are seconds."""

    samples: int = 10
    optimum: float = 0.0
    rate: float = 0.5  # share of the way to the own optimum that one version goes
    train: float = 20.0  # one version
    merge: float = 0.5
    store: float = 0.1  # until a version is durable
    size: float = 1e6  # bytes of a model


@dataclass
class Disk:
    """What survives a crash: the last incarnation, the newest version, the table, and the bytes of models."""

    incarnation: int = 0
    newest: Announcement | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    blobs: dict[str, float] = field(default_factory=dict)  # content digest -> model
    full: bool = False

    def copy(self) -> Disk:
        """A backup of this moment."""
        entries = {
            author: replace(e, offers={}, seen=dict(e.seen), refused=dict(e.refused), quarantined=set(e.quarantined))
            for author, e in self.entries.items()
        }
        return Disk(self.incarnation, self.newest, entries, dict(self.blobs))


class Peer:
    """One peer over all its lives. Down when `machine` is None."""

    def __init__(self, name: str, lab: Lab, world: World) -> None:
        self.name, self.lab, self.world = name, lab, world
        self.disk, self.backup = Disk(), Disk()
        self.rng = Random(f"{world.seed}/{name}")
        self.machine: PeerMachine | None = None
        self.lives = 0
        self.model = 0.0  # all start from the same weights
        self.ended: frozenset[tuple[str, Version]] = frozenset()  # what the last merge was made of
        self.reason = ""  # of the last leave
        self.expected: dict[tuple[str, str], want.Fetch] = {}  # (source, content) -> what it is to push
        self._timer = float("inf")

    # ------------------------------------------------------------- lives

    def start(self) -> None:
        """A new life on this disk."""
        world, disk = self.world, self.disk
        now = world.clock.now
        self.lives += 1
        disk.incarnation = next_incarnation(disk.incarnation, world.unix_ms(), 0)
        disk.entries = disk.copy().entries  # what was only offered is forgotten
        self.model = disk.blobs[disk.newest.content] if disk.newest else 0.0
        restored = Restored(disk.incarnation, disk.newest, disk.entries)
        self.machine = PeerMachine(self.name, world.federation, world.roster, world.policy, self.rng, restored, now)
        disk.entries = self.machine.table.entries
        self._timer, self.ended, self.reason = float("inf"), frozenset(), ""
        self.expected = {}
        self._note("start", disk.incarnation)
        self._settle()

    def crash(self) -> None:
        """Kill -9: whatever is not on the disk is gone."""
        if self.machine is not None:
            self._note("crash")
            self.machine = None

    def stop(self) -> None:
        """A person ends the process."""
        if self.machine is not None:
            self.machine.stop(self.world.clock.now)
            self._settle()

    def lose_disk(self) -> None:
        """Only while down: the next life begins with nothing but the key."""
        self.disk = Disk()
        self._note("lost disk")

    def restore_backup(self) -> None:
        """Only while down: the disk is as it was when `backup` was made."""
        self.disk = self.backup.copy()
        self._note("old copy", self.disk.incarnation)

    @property
    def present(self) -> bool:
        """Running, and not gone from the federation."""
        return self.machine is not None and self.machine.step is not Step.LEFT

    # ------------------------------------------------------------- what others reach

    def sighted(self, other: str) -> None:
        """Discovery saw `other`."""
        if self.machine is not None:
            self.machine.sighted(other, other, self.world.clock.now)
            self._settle()

    def answer(self, ask: want.Ask, sender: str) -> TellMessage | None:
        """Serve an ask; None if nobody is at home. The hello before a first ask says where the sender is."""
        if self.machine is None:
            return None
        contact = self.machine.contacts.of.get(sender)
        if contact is None or not contact.addresses:
            self.machine.sighted(sender, sender, self.world.clock.now)
        reply = self.machine.received(ask.message, sender, self.world.clock.now)
        self._settle()
        return reply

    def serve(self, content: str) -> float | RemoteError | None:
        """Serve the bytes of a model."""
        if self.machine is None:
            return None
        return self.disk.blobs.get(content, Gone(f"{self.name} has no {content[:8]}"))

    # ------------------------------------------------------------- effects

    def _settle(self) -> None:
        """Carry out what the machine wants and set the one timer."""
        machine = self.machine
        while machine is not None and (effects := machine.effects()):
            for effect in effects:
                getattr(self, f"_{type(effect).__name__.lower()}")(effect)
            machine = self.machine
        deadline = machine.next_deadline() if machine is not None else None
        if deadline is None:
            self._timer = float("inf")
        elif deadline < self._timer:  # a timer that is too early looks again and sleeps on
            if deadline <= self.world.clock.now:
                raise RuntimeError(f"{self.name} would wake at {deadline}, now is {self.world.clock.now}: a busy loop")
            self._timer = deadline
            self.world.clock.at(deadline, self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        if self.machine is not None and deadline == self._timer:
            self._timer = float("inf")
            due = self.machine.next_deadline()
            if due is not None and due <= self.world.clock.now:
                self.machine.tick(self.world.clock.now)
            self._settle()

    def _tell(self, life: int, event: str, *args: Any, **named: Any) -> None:
        """Report to the machine, unless it died meanwhile."""
        if self.machine is not None and life == self.lives:
            getattr(self.machine, event)(*args, self.world.clock.now, **named)
            self._settle()

    def _later(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` after `delay` in this life, or never."""
        life = self.lives

        def unless_dead() -> None:
            if self.machine is not None and life == self.lives:
                call(*args)

        self.world.clock.after(delay, unless_dead)

    def _note(self, event: str, *details: Any) -> None:
        self.world.trace.add(round(self.world.clock.now, 6), self.name, event, *details)

    def _ask(self, ask: want.Ask) -> None:
        life, other = self.lives, self.world.peers[ask.peer]
        self.world.asks += 1
        self.world.network.exchange(
            self.name, ask.peer, lambda: other.answer(ask, self.name),
            lambda reply: self._tell(life, "asked", ask.peer, reply), deadline=self.world.policy.ask_deadline,
        )  # fmt: skip

    def _fetch(self, fetch: want.Fetch) -> None:
        life, other = self.lives, self.world.peers[fetch.source]
        deadline = self.world.policy.ask_deadline + self.world.network.seconds(other.lab.size)
        if fetch.pushed:
            key = fetch.source, fetch.announcement.content
            self.expected[key] = fetch
            self._later(deadline, self.take, *key, Unreachable(f"{fetch.source} did not send it"))
        else:
            self.world.network.exchange(
                self.name, fetch.source, lambda: other.serve(fetch.announcement.content),
                lambda model: self._fetched(life, fetch, model), deadline=deadline, size=other.lab.size,
            )  # fmt: skip

    def _fetched(self, life: int, fetch: want.Fetch, model: float | RemoteError) -> None:
        announcement = fetch.announcement
        if self.machine is None or life != self.lives:
            return
        self._note("fetch", announcement.author, announcement.version, fetch.source, not isinstance(model, float))
        if isinstance(model, RemoteError):
            self._tell(life, "fetch_failed", announcement, fetch.source)
        elif self.disk.full:
            self._tell(life, "storage_full", announcement)
        else:
            self.disk.blobs[announcement.content] = model
            self._tell(life, "fetched", announcement, fetch.source)

    def take(self, source: str, content: str, model: float | RemoteError) -> None:
        """`source` brings a model, or it is waited for no longer; taken only if it was to bring that."""
        fetch = self.expected.pop((source, content), None)
        if fetch is not None:
            self._fetched(self.lives, fetch, model)

    def _push(self, push: want.Push) -> None:
        life, other = self.lives, self.world.peers[push.peer]
        models = {digest: self.disk.blobs[digest] for digest in push.digests if digest in self.disk.blobs}
        network, size = self.world.network, self.lab.size * len(models)

        def arrived() -> bool | None:
            if other.machine is None:
                return None
            for content, model in models.items():
                other.take(self.name, content, model)
            return True

        # The bytes travel before the answer; as they take as long, they are charged to it.
        network.exchange(
            self.name, push.peer, arrived, lambda _: self._tell(life, "pushed", push.peer),
            deadline=self.world.policy.ask_deadline + network.seconds(size), size=size,
        )  # fmt: skip

    def _merge(self, merge: want.Merge) -> None:
        self._later(self.lab.merge, self._merge_now, merge)

    def _merge_now(self, merge: want.Merge) -> None:
        own = 0 if merge.adopt else self.lab.samples
        parts = [(self.model, own), *((self.disk.blobs[a.content], a.samples) for a in merge.candidates)]
        self.model = sum(x * a for x, a in parts) / sum(a for _, a in parts)
        versions = tuple((a.author, a.version) for a in merge.candidates)
        self._note("merge", merge.adopt, merge.last, merge.below_quorum, versions)
        if merge.last and self.disk.newest is not None:
            self.ended = frozenset([(self.name, self.disk.newest.version), *versions])
        self._tell(self.lives, "merged", [author for author, _ in versions], {})

    def _train(self, train: want.Train) -> None:
        self._later(self.lab.train, self._train_now)

    def _train_now(self) -> None:
        if self.machine is not None and self.machine.step is Step.TRAINING:
            self.model += self.lab.rate * (self.lab.optimum - self.model)
            self._tell(self.lives, "trained", True, -abs(self.model - self.lab.optimum))

    def _halt(self, halt: want.Halt) -> None:
        self._later(0.0, self._tell, self.lives, "trained", False, None)

    def _publish(self, publish: want.Publish) -> None:
        self._later(self.lab.store, self._store, publish)

    def _store(self, publish: want.Publish) -> None:
        """Durable first; the machine hears of it later, so that a crash can fall between."""
        if self.disk.full:
            self._tell(self.lives, "published", None)
            return
        content = blake3(f"{self.name} {publish.version} {self.model!r} {self.rng.random()}".encode()).hexdigest()
        announcement = Announcement(
            self.world.federation, self.name, publish.version, content, self.lab.samples, 1, self.lab.train,
            "0" * 64, content, 100, publish.final,
        )  # fmt: skip
        before, self.disk.newest = self.disk.newest, announcement
        self.disk.blobs[content] = self.model
        if before is not None:
            self.disk.blobs.pop(before.content, None)
        self.disk.incarnation = max(self.disk.incarnation, publish.version.incarnation)
        self.world.published(announcement)
        self._note("publish", publish.version, publish.final, content)
        self._later(self.lab.store, self._tell, self.lives, "published", announcement)

    def _forget(self, forget: want.Forget) -> None:
        self.disk.blobs.pop(forget.announcement.content, None)

    def _quarantine(self, quarantine: want.Quarantine) -> None:
        self.world.equivocations.append(quarantine)
        self._note("quarantine", quarantine.first.author, quarantine.first.version)
        pair = sorted((quarantine.first, quarantine.second), key=lambda a: a.content)
        if self.machine is not None:
            raw = f"{quarantine.first.author} {[a.content for a in pair]}".encode()
            self.machine.noticed(Proof(pair[0], pair[1], raw))

    def _heard(self, heard: want.Heard) -> None:
        self._note("heard", type(heard.notice).__name__, heard.notice.author, heard.source)

    def _leave(self, leave: want.Leave) -> None:
        self.reason = leave.reason
        self._note("leave", leave.reason)
        self._later(self.world.policy.ask_deadline, self.crash)  # serving is finished to a deadline
