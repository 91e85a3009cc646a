"""A federation in virtual time: who is there, what fails, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from braintorrent.protocol.effects import Quarantine
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.version import Version
from braintorrent.simulation.clock import Clock, Trace
from braintorrent.simulation.network import Link, Network
from braintorrent.simulation.peer import EPOCH_MS, Lab, Peer


@dataclass(frozen=True)
class Churn:
    """Peers come and go until `until`: who is away then still returns, nobody goes any more. Times are seconds."""

    session: float = 300.0  # mean of an exponential
    absence: float = 60.0  # likewise
    clean: float = 0.3  # share of goings that are a clean leave, not a crash
    lost_disk: float = 0.1  # share of returns with nothing but the key
    old_copy: float = 0.1  # share of returns on a restored backup
    until: float = float("inf")


class World:
    """`peers` labs, one network, one clock. The same arguments give the same trace, byte for byte.

    lab: Random, index -> Lab. known: addresses a starting peer finds; None means that it and everyone
    running see each other, as on one local network.
    """

    federation = "simulated"

    def __init__(
        self, seed: int, peers: int, policy: Policy, *, link: Link | None = None, churn: Churn | None = None,
        lab: Callable[[Random, int], Lab] | None = None, known: int | None = None, within: float = 10.0,
        keep_trace: bool = True,
    ) -> None:  # fmt: skip
        self.seed, self.policy, self.churn, self.known = seed, policy, churn, known
        self.rng = Random(f"{seed}/world")
        self.clock, self.trace = Clock(), Trace(keep=keep_trace)
        self.network = Network(self.clock, Random(f"{seed}/network"), link or Link())
        make = lab or varied
        names = [f"lab{index:05d}" for index in range(peers)]
        self.roster = frozenset(names)
        self.peers = {name: Peer(name, make(self.rng, index), self) for index, name in enumerate(names)}
        self.asks = 0
        self.gone: set[str] = set()  # these do not start again
        self.contents: dict[tuple[str, Version], str] = {}
        self.conflicts: list[Announcement] = []  # a version published a second time, with another content
        self.equivocations: list[Quarantine] = []
        for name in names:
            self.clock.at(within * self.rng.random(), self.start, name)

    # ------------------------------------------------------------- running

    def run(self, until: float) -> World:
        """Go on to virtual second `until`."""
        self.clock.run(until)
        return self

    def unix_ms(self) -> int:
        """What a wall clock shows."""
        return EPOCH_MS + round(1000 * self.clock.now)

    def present(self) -> list[Peer]:
        """Peers that run and have not left."""
        return [peer for peer in self.peers.values() if peer.present]

    def missing(self) -> list[tuple[str, str]]:
        """(holder, author) of present peers where the one lacks the other's newest version."""
        here = [(p.name, p.machine, p.disk.newest) for p in self.present()]
        lacking = []
        for holder, machine, _ in here:
            for author, _, newest in here:
                held = machine.table.entries.get(author) if machine else None
                if newest is not None and holder != author and (held is None or held.held != newest):
                    lacking.append((holder, author))
        return lacking

    def published(self, announcement: Announcement) -> None:
        """A version became durable at its author."""
        key = announcement.author, announcement.version
        if self.contents.setdefault(key, announcement.content) != announcement.content:
            self.conflicts.append(announcement)

    # ------------------------------------------------------------- coming and going

    def start(self, name: str) -> None:
        """Start a peer that is down, and let discovery do its work."""
        peer = self.peers[name]
        if peer.machine is not None or name in self.gone:
            return
        others = [p.name for p in self.present()]
        peer.start()
        if self.known is not None:
            others = self.rng.sample(sorted(self.roster - {name}), min(self.known, len(self.roster) - 1))
        for other in others:
            peer.sighted(other)
            if self.known is None:
                self.peers[other].sighted(name)
        if self.churn is not None:
            self.clock.after(self.rng.expovariate(1 / self.churn.session), self._go, name, peer.lives)

    def lose(self, name: str) -> None:
        """It crashes and never returns."""
        self.gone.add(name)
        self.peers[name].crash()

    def _go(self, name: str, life: int) -> None:
        peer, churn = self.peers[name], self.churn
        if churn is None or self.clock.now >= churn.until or not peer.present or peer.lives != life:
            return
        if self.rng.random() < churn.clean:
            peer.stop()
            self.clock.after(2 * self.policy.ask_deadline, peer.crash)  # long gone by then, or hung: then killed
        else:
            peer.crash()
        self.clock.after(2 * self.policy.ask_deadline + self.rng.expovariate(1 / churn.absence), self._return, name)

    def _return(self, name: str) -> None:
        peer, fate = self.peers[name], self.rng.random()
        if peer.machine is None and self.churn is not None:
            if fate < self.churn.lost_disk:
                peer.lose_disk()
            elif fate < self.churn.lost_disk + self.churn.old_copy:
                peer.restore_backup()
            else:
                peer.backup = peer.disk.copy()
        self.start(name)


def varied(rng: Random, index: int) -> Lab:
    """Labs that differ in cases, speed and what they would learn alone."""
    return Lab(samples=rng.randint(5, 50), optimum=rng.gauss(0.0, 1.0), train=rng.uniform(10.0, 30.0))
