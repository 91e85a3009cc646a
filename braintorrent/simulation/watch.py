"""What an onlooker sees of a run that no peer sees: how far each publish came, who merged whom, how far all are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.simulation.learner import Blob
from braintorrent.simulation.run import Series, Spread

if TYPE_CHECKING:
    from braintorrent.simulation.peer import Peer
    from braintorrent.simulation.world import World

PROBES = 32  # publishes whose influence is followed
FROM, TO = 0.1, 0.3  # share of the run in which they are taken: after the start, with time to spread
HOLDING = 256  # peers up to which it is followed who holds each publish
OPEN = 8  # publishes of one author that are followed at once
ROWS = 64  # of the matrix of who merged whom
SHARES = (0.5, 0.9)


class Reach:
    """Who has something, bit by peer, and when shares of the present peers first had it."""

    def __init__(self, author: int, at: float, last: float) -> None:
        self.author, self.at, self.who = author, at, 1 << author
        self.shares = (*SHARES, last)
        self.times: tuple[float | None, float | None, float | None] = (None, None, None)

    @property
    def others(self) -> int:
        """How many besides its author have it."""
        return (self.who & ~(1 << self.author)).bit_count()

    def add(self, peer: int, present: int, now: float) -> bool:
        """One more has it. Whether all shares are reached."""
        self.who |= 1 << peer
        have, all_of_them = (self.who & present).bit_count(), present.bit_count()
        half, most, last = (
            now - self.at if time is None and have >= ceil(share * all_of_them) else time
            for share, time in zip(self.shares, self.times, strict=True)
        )
        self.times = half, most, last
        return last is not None


class Watch:
    """Told of all that happens in a World."""

    def __init__(self, world: World) -> None:
        self.world, peers, seconds = world, world.scenario.peers, world.scenario.seconds
        self.present = 0  # bit by peer
        self.events: list[tuple[float, str]] = []
        self.versions = [0] * peers
        self.seconds_here = [0.0] * peers
        self._since = [0.0] * peers
        self.probes: list[Reach] = []
        self._next = [seconds * (FROM + (TO - FROM) * n / PROBES) for n in range(PROBES)]
        self.reaches: list[Reach] = []  # of all publishes, in a small federation
        self._open: dict[str, list[tuple[Version, Reach]]] = {}
        self._influenced = [0] * peers  # bit by probe
        self.given: dict[str, Version] = {}  # author -> newest version that another came to hold
        self.kept: dict[str, Version] = {}  # author -> newest version that it came back with
        self.last: dict[str, Announcement] = {}  # author -> its newest publish
        self.per_row = ceil(peers / ROWS)
        self.matrix = [[0] * ceil(peers / self.per_row) for _ in range(ceil(peers / self.per_row))]
        self._ages = [0.0, 0.0]  # sum and number, of what was merged since the last sample
        self.series = Series()

    # ------------------------------------------------------------- told by peers

    def came(self, peer: Peer) -> None:
        """It began a life."""
        self.present |= 1 << peer.index
        self._since[peer.index] = self.world.clock.now
        if peer.disk.newest is not None:
            self.kept[peer.name] = peer.disk.newest.version

    def went(self, peer: Peer) -> None:
        """It left, or crashed."""
        bit = 1 << peer.index
        if self.present & bit:
            self.present &= ~bit
            self.seconds_here[peer.index] += self.world.clock.now - self._since[peer.index]

    def lost(self, peer: Peer) -> None:
        """Its disk is gone, and what it held with it."""
        self._influenced[peer.index] = 0
        for reach in (*self.probes, *(reach for of in self._open.values() for _, reach in of)):
            reach.who &= ~(1 << peer.index)

    def published(self, peer: Peer, announcement: Announcement) -> int:
        """A version became durable at its author. The bit of a probe that begins with it, or 0."""
        now = self.world.clock.now
        self.world.published(announcement)
        self.versions[peer.index] += 1
        self.last[peer.name] = announcement
        if self.world.scenario.peers <= HOLDING:
            reach = Reach(peer.index, now, 1.0)
            self.reaches.append(reach)
            self._open.setdefault(peer.name, []).append((announcement.version, reach))
            del self._open[peer.name][:-OPEN]
        if not self._next or now < self._next[0]:
            return 0
        del self._next[0]
        self.probes.append(Reach(peer.index, now, 0.99))
        bit = 1 << (len(self.probes) - 1)
        self._influenced[peer.index] |= bit
        return bit

    def held(self, peer: Peer, announcement: Announcement, blob: Blob) -> None:
        """A peer has a model of another on its disk."""
        now, author = self.world.clock.now, announcement.author
        if announcement.version > self.given.get(author, (0, 0)):
            self.given[author] = announcement.version
        fresh = blob.influence & ~self._influenced[peer.index]
        if fresh:
            self._influenced[peer.index] |= fresh
            for number, probe in enumerate(self.probes):
                if fresh >> number & 1:
                    probe.add(peer.index, self.present, now)
        if author in self._open:
            self._open[author] = [
                (version, reach) for version, reach in self._open[author]
                if announcement.version < version or not reach.add(peer.index, self.present, now)
            ]  # fmt: skip

    def merged(self, peer: Peer, candidates: Sequence[Announcement], blobs: Sequence[Blob]) -> None:
        """A peer merged these."""
        row = self.matrix[peer.index // self.per_row]
        for announcement, blob in zip(candidates, blobs, strict=True):
            row[self.world.peers[announcement.author].index // self.per_row] += 1
            self._ages[0] += self.world.clock.now - blob.at
            self._ages[1] += 1

    # ------------------------------------------------------------- looked at

    def sample(self) -> None:
        """One more point on every curve."""
        world, series = self.world, self.series
        models = {peer.index: peer.model for peer in world.present()}
        mean, worst, consensus = world.learning.measure(models)
        series.times.append(world.clock.now)
        series.mean.append(mean)
        series.worst.append(worst)
        series.consensus.append(consensus)
        series.staleness.append(self._ages[0] / self._ages[1] if self._ages[1] else 0.0)
        series.present.append(len(models))
        series.bytes.append(sum(line.sent for line in world.network.lines.values()))
        series.published.append(sum(self.versions))
        self._ages = [0.0, 0.0]

    def here(self) -> list[float]:
        """Seconds that each peer was there."""
        now = self.world.clock.now
        open_ = (now - since if self.present >> index & 1 else 0.0 for index, since in enumerate(self._since))
        return [before + more for before, more in zip(self.seconds_here, open_, strict=True)]

    def versions_lost(self) -> int:
        """Newest versions that another held, or that their author came back with, and that are gone for good now."""
        on_disk: dict[str, Version] = {}
        for disk in (peer.disk for peer in self.world.lasting()):
            for announcement in (disk.newest, *(entry.held for entry in disk.entries.values())):
                if announcement is not None and announcement.version > on_disk.get(announcement.author, NOTHING):
                    on_disk[announcement.author] = announcement.version
        return sum(
            max(self.given.get(author, NOTHING), self.kept.get(author, NOTHING)) >= newest.version
            and on_disk.get(author, NOTHING) < newest.version
            for author, newest in self.last.items()
        )  # fmt: skip

    def spreads(self) -> list[Spread]:
        """How far each publish came, in a large federation each of the probes."""
        probes = {
            (probe.author, probe.at): Spread(probe.author, probe.at, influence=probe.times, reached=probe.others)
            for probe in self.probes
        }
        held = (Spread(reach.author, reach.at, reach.times) for reach in self.reaches)
        found = [replace(probes.pop((one.author, one.at), one), held=one.held) for one in held]
        return found or [*probes.values()]
