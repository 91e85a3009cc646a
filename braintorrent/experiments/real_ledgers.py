"""What became of a federation of real processes, from their ledgers alone: nobody needs to answer, or to be alive.

A ledger tells when each version was whole on its disk, so that times of propagation need no clock but the host's.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from braintorrent.errors import FormatError
from braintorrent.node.roster import Roster
from braintorrent.protocol.version import Version
from braintorrent.storage import Ledger, Merged, StatePaths

Key = tuple[str, Version]  # author, version


@dataclass(frozen=True, slots=True)
class Story:
    """What one disk tells of its lab. Times are Unix seconds.

    me: peer id, "" before the first start; lives: their starts; arrived: version -> since when it was whole here, own
    ones too; held: those whose weights lie here now; traffic: peer -> bytes (received, sent); trusts: peer ids;
    trained: own version -> seconds of training; finished: when it published its final one, inf if it has not.
    """

    me: str
    lives: tuple[float, ...]
    arrived: Mapping[Key, float]
    held: frozenset[Key]
    merges: tuple[tuple[Version | None, Merged], ...]
    traffic: Mapping[str, tuple[int, int]]
    trusts: frozenset[str]
    trained: Mapping[Version, float] = field(default_factory=dict)
    finished: float = math.inf

    @property
    def own(self) -> list[tuple[Version, float]]:
        """Own versions with the time of their publication, in order."""
        return [(version, unix) for (author, version), unix in self.arrived.items() if author == self.me]

    def until(self, unix: float) -> Story:
        """What it told by then."""
        arrived = {key: at for key, at in self.arrived.items() if at <= unix}
        return replace(self, arrived=arrived, merges=tuple(told for told in self.merges if told[1].unix <= unix))

    def without_traffic_of(self, backup: Story) -> Story:
        """This disk's, less what a copy of it tells too."""
        less = {peer: backup.traffic.get(peer, (0, 0)) for peer in self.traffic}
        return replace(self, traffic={p: (i - less[p][0], o - less[p][1]) for p, (i, o) in self.traffic.items()})


EMPTY = Story("", (), {}, frozenset(), (), {}, frozenset())


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Ledger | None]:
    """The ledger of a peer folder, also beside a running node; None where there is none, or none yet."""
    file = StatePaths(folder).ledger
    with contextlib.ExitStack() as stack:
        ledger = None
        if file.exists():
            with contextlib.suppress(FormatError):  # its first node is making it
                ledger = stack.enter_context(Ledger(file, read_only=True))
        yield ledger


def read(folder: Path) -> Story:
    """What the disk of a peer folder tells now; EMPTY where there is no ledger."""
    state = StatePaths(folder)
    with opened(folder) as ledger:
        if ledger is None:
            return EMPTY
        lives = list(ledger.chain("life"))
        arrivals, merges, traffic = ledger.arrivals(), tuple(ledger.merges()), ledger.traffic()
    me = lives[-1].author if lives else ""
    own = [(a, unix) for a, unix in arrivals if a.author == me]
    return Story(
        me,
        tuple(life.unix_ms / 1000 for life in lives),
        {(a.author, a.version): unix for a, unix in arrivals},
        frozenset((a.author, a.version) for a, _ in arrivals if (state.blobs / a.content).exists()),
        merges, traffic, Roster(state.roster).ids, {a.version: a.seconds for a, _ in own},
        max((unix for a, unix in own if a.final), default=math.inf),
    )  # fmt: skip


def lost(stories: Mapping[str, Story], wiped: Iterable[Story] = ()) -> list[Key]:
    """Newest versions that no disk holds, though one of these did, or a disk that was lost held it for its author.

    stories: the labs that are present, each with its disk; wiped: what the disks told that they have lost since.
    Nothing is lost of an own version that went with its author's disk before any other lab had it, since nobody could
    have it, nor of an author whom all labs trust no more: they let go of it.
    """
    known = {key for story in stories.values() for key in story.arrived}
    known |= {key for story in wiped for key in story.arrived if key[0] != story.me}
    members = {peer for story in stories.values() for peer in (story.me, *story.trusts)}
    held = {key for story in stories.values() for key in story.held}
    newest: dict[str, Version] = {}
    for author, version in known:
        if author in members:
            newest[author] = max(version, newest.get(author, version))
    return sorted(key for key in newest.items() if key not in held)


def longest_wait(story: Story, ends: Iterable[float]) -> float:
    """Seconds from a start or publication of this lab to its next publication, or to where its life ended, at most.

    ends: of its processes. Who has published its final version waits for the others, which is of no account.
    """
    return max((after - before for before, after in _stretches(story, ends)), default=0.0)


def held_up(story: Story, since: float, ends: Iterable[float]) -> float:
    """Seconds from the begin of a life, or a publication, until this lab went on to train its next version, at most.

    Until the merge that the version was trained from; if that came before, or never, all that was not training. Where
    a life ended (ends) before a version came, nobody knows whether the lab was training: as long as its longest
    training took, it may have been. since: when the first lab had published: until then newcomers look for a model.
    """
    published = {unix: version for version, unix in story.own}
    merged = {into: told.unix for into, told in story.merges}
    longest = max(story.trained.values(), default=0.0)
    gaps = [0.0]
    for before, after in _stretches(story, ends):
        if before >= since:
            version = published.get(after)
            took = longest if version is None else story.trained[version]
            at = merged.get(version, 0.0)
            gaps.append((at if version is not None and at >= before else after - took) - before)
    return max(gaps)


def _stretches(story: Story, ends: Iterable[float]) -> Iterator[tuple[float, float]]:
    """From each start or publication, while more is to come, to the next publication, or to where the life ended."""
    begun = [*story.lives, *(unix for _, unix in story.own)]
    moments = sorted([*((unix, unix < story.finished) for unix in begun), *((unix, False) for unix in ends)])
    return ((before, after) for (before, alive), (after, _) in itertools.pairwise(moments) if alive)
