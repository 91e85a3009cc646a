"""A federation in virtual time: who is there, what befalls them, and what became of it."""

from __future__ import annotations

from random import Random

from braintorrent.errors import ConfigError
from braintorrent.protocol.effects import Quarantine
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.simulation.clock import Clock, Trace
from braintorrent.simulation.learner import Learning, StandIn
from braintorrent.simulation.network import Line, Network
from braintorrent.simulation.peer import Peer
from braintorrent.simulation.scenario import Peer as Special
from braintorrent.simulation.scenario import Scenario
from braintorrent.simulation.timeline import Act, fate, timeline
from braintorrent.simulation.watch import Watch

EPOCH_MS = 1_700_000_000_000  # unix time of virtual second 0
LOOK_AGAIN = 1.0  # seconds until one looks again whether a lab that leaves has left


class World:
    """A scenario's labs, one network, one clock. The same arguments give the same trace, byte for byte."""

    federation = "simulated"

    def __init__(
        self, scenario: Scenario, seed: int, *, keep_trace: bool = True, learning: Learning | None = None
    ) -> None:
        if any(happening.what == "lose_all" for happening in scenario.happenings):
            raise ConfigError(
                f"{scenario.name}: who lost all returns under a new key: play it with --real; in virtual time one lab "
                "is killed and another joins"
            )
        self.scenario, self.seed = scenario, seed
        self.rng = Random(f"{seed}/world")
        self.clock, self.trace = Clock(), Trace(keep=keep_trace)
        self.network = Network(self.clock, Random(f"{seed}/network"))
        self.learning = learning if learning is not None else StandIn(scenario, seed)
        self.attackers = {attacker.who: attacker for attacker in scenario.attackers}
        names = [f"lab{index:05d}" for index in range(scenario.peers)]
        self.roster = frozenset(names)
        self.watch = Watch(self)
        self.peers: dict[str, Peer] = {}
        for index, name in enumerate(names):
            self.network.lines[name] = line = self._line(name, scenario.special.get(index, Special()))
            self.peers[name] = Peer(index, line, self.learning.labs[index], self)
        self._of = list(self.peers.values())
        self.asks = 0
        self.gone: set[str] = set()  # these do not start again
        self.returning: set[str] = set()  # these leave, and start again as soon as they have left
        self.contents: dict[tuple[str, Version], str] = {}
        self.conflicts: list[Announcement] = []  # a version published a second time, with another content
        self.equivocations: list[Quarantine] = []
        self.acts = timeline(scenario, seed)
        self._copied = {index for act in self.acts if act.what == "old_copy" for index in act.who}
        for act in self.acts:
            self.clock.at(act.at, self.play, act)

    def _line(self, name: str, special: Special) -> Line:
        closed = frozenset(f"lab{index:05d}" for index in special.closed_to)
        return Line(name, special.links or self.scenario.links, special.nat, closed)

    # ------------------------------------------------------------- running

    def run(self, until: float) -> World:
        """Go on to virtual second `until`."""
        self.clock.run(until)
        return self

    def unix_ms(self) -> int:
        """What a wall clock shows."""
        return EPOCH_MS + round(1000 * self.clock.now)

    @property
    def push_seconds(self) -> float:
        """How long a model that somebody is to push is waited for."""
        lines = [self.scenario.links, *(p.links for p in self.scenario.special.values() if p.links)]
        slowest = min((rate for line in lines for rate in (line.uplink, line.downlink) if rate), default=1e9)
        return self.scenario.policy.ask_deadline + 4 * self.scenario.model_bytes / slowest

    @staticmethod
    def half(name: str) -> bool:
        """Whether a peer belongs to the half that an equivocator shows its other face."""
        return int(name[3:]) % 2 == 1

    def present(self) -> list[Peer]:
        """Peers that run and have not left."""
        return [peer for peer in self.peers.values() if peer.present]

    def lasting(self) -> list[Peer]:
        """Peers whose disks are not gone for good: they are present, will return, or have finished."""
        now = self.clock.now
        back = {i for act in fate(self.scenario, self.seed) if act.what == "start" and act.at > now for i in act.who}
        return [
            peer for name, peer in self.peers.items()
            if peer.present or peer.reason == "finished"
            or (name not in self.gone and (name in self.returning or peer.index in back))
        ]  # fmt: skip

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

    def close(self) -> None:
        """It is over. Nothing points in a circle any more, so that memory returns without a search."""
        self.peers.clear()
        self._of.clear()
        self.clock.clear()

    # ------------------------------------------------------------- what befalls them

    def play(self, act: Act) -> None:
        """One act of the timeline."""
        names = [self._of[index].name for index in act.who]
        if act.what == "part":
            self.network.part(names)
        elif act.what == "heal":
            self.network.heal()
        else:
            for name in names:
                self._befall(self.peers[name], act)

    def _befall(self, peer: Peer, act: Act) -> None:
        match act.what:
            case "start":
                peer.protocols = act.protocols or peer.protocols
                self.start(peer.name)
            case "leave":
                self.leave(peer)
            case "kill":
                self.returning.discard(peer.name)
                peer.crash()
            case "lose_disk" if peer.machine is None:
                peer.lose_disk()
            case "old_copy" if peer.machine is None:
                peer.restore_backup()
            case "pause":
                peer.pause()
            case "resume":
                peer.resume()
            case "slow":
                peer.slow = act.factor

    def start(self, name: str) -> None:
        """Start a peer that is down, or as soon as it has left, and let discovery do its work."""
        peer, known = self.peers[name], self.scenario.known
        if peer.machine is not None and peer.machine.stopping and name not in self.returning:
            self.returning.add(name)
            self.clock.after(LOOK_AGAIN, self._return, name)
        if peer.machine is not None or name in self.gone:
            return
        self.returning.discard(name)
        if peer.index in self._copied:
            peer.back_up()
        others = [p.name for p in self.present()] if known is None else self._known(peer, known)
        peer.start()
        for other in others:
            peer.sighted(other)
            if known is None:
                self.peers[other].sighted(name)

    def _return(self, name: str) -> None:
        if name in self.returning:
            self.returning.remove(name)
            self.start(name)

    def _known(self, peer: Peer, known: int) -> list[str]:
        drawn = self.rng.sample(range(len(self._of)), min(known + 1, len(self._of)))
        return [self._of[index].name for index in drawn if index != peer.index][:known]

    def leave(self, peer: Peer) -> None:
        """It is asked to end in good order; long after it should be gone, it hangs and is killed."""
        policy = self.scenario.policy
        peer.stop()
        peer.later(policy.hand_over + 2 * policy.ask_deadline, peer.crash)

    def lose(self, name: str) -> None:
        """It crashes and never returns."""
        self.gone.add(name)
        self.returning.discard(name)
        self.peers[name].crash()
