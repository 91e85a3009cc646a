"""How published versions and their influence came to the others, from the stories that the ledgers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from braintorrent.experiments.real_ledgers import Key, Story
from braintorrent.simulation.run import Spread
from braintorrent.simulation.watch import Reach

ORDER = {"merge": 0, "publish": 1, "arrive": 2}  # of what happened in one instant


class Event(NamedTuple):
    """What a disk tells: a merge (versions, whether without an own model), a publish or an arrival (the version)."""

    at: float
    what: str
    lab: int
    told: Any = None

    @property
    def order(self) -> tuple[float, int]:
        """In which they count."""
        return self.at, ORDER[self.what]


def events(stories: Sequence[tuple[int, Story]]) -> list[Event]:
    """All that happened, in order. stories: of each lab every disk that it had, lost ones and their copies too."""
    found = set()
    for lab, story in stories:
        for _, merged in story.merges:
            keys = tuple((author, p.version) for author, p in merged.included.items() if author != story.me)
            found.add(Event(merged.unix, "merge", lab, (keys, merged.adopt)))
        for key, at in story.arrived.items():
            found.add(Event(at, "publish" if key[0] == story.me else "arrive", lab, key))
    return sorted(found, key=lambda event: event.order)


class Spreading:
    """Follows every publish through `events`. sessions: (lab, from, to), Unix seconds."""

    def __init__(self, sessions: Sequence[Sequence[float]]) -> None:
        self.sessions = sessions
        self.keys: list[Key] = []  # the versions, by number
        self.held: list[Reach] = []  # who has each of them, or a newer one of its author
        self.influence: list[Reach] = []  # who has it, or a model that merged it
        self._carried: dict[Key, int] = {}  # bit k: the k-th publish went into this version
        self._model: dict[int, int] = {}  # likewise, of what a lab trains

    def present(self, at: float) -> int:
        """Bit by lab: whose process ran then."""
        return sum({1 << int(lab) for lab, since, to in self.sessions if since <= at < to})

    def follow(self, happened: Sequence[Event]) -> None:
        """Take in what happened, in order."""
        for event in happened:
            if event.what == "merge":
                keys, adopt = event.told
                self._model[event.lab] = 0 if adopt else self._model.get(event.lab, 0)
                for key in keys:
                    self._model[event.lab] |= self._carried.get(key, 0)
            else:
                if event.what == "publish":
                    self._publish(event)
                self._has(event.lab, event.told, event.at)

    def _publish(self, event: Event) -> None:
        carried = self._model.get(event.lab, 0) | 1 << len(self.keys)
        self._carried[event.told] = self._model[event.lab] = carried
        self.keys.append(event.told)
        self.held.append(Reach(event.lab, event.at, 1.0))
        self.influence.append(Reach(event.lab, event.at, 0.99))

    def _has(self, lab: int, key: Key, at: float) -> None:
        """The bytes of a version are on the disk of a lab."""
        carried, present = self._carried.get(key, 0), self.present(at)
        for number, (author, version) in enumerate(self.keys):
            newer = author == key[0] and version <= key[1]
            if newer:
                self.held[number].add(lab, present, at)
            if newer or carried >> number & 1:
                self.influence[number].add(lab, present, at)


def spreads(stories: Sequence[tuple[int, Story]], sessions: Sequence[Sequence[float]], began: float) -> list[Spread]:
    """Of every publish. began: Unix seconds of second 0."""
    spreading = Spreading(sessions)
    spreading.follow(events(stories))
    return [
        Spread(held.author, held.at - began, _three(held), _three(influence))
        for held, influence in zip(spreading.held, spreading.influence, strict=True)
    ]


def _three(reach: Reach) -> tuple[float | None, float | None, float | None]:
    half, most, last = reach.times
    return half, most, last


def merged_by(stories: Sequence[tuple[int, Story]], labs: Mapping[str, int], count: int) -> list[list[int]]:
    """[merger][author] -> how often. labs: peer id -> lab."""
    table = [[0] * count for _ in range(count)]
    for lab, story in stories:
        for _, merged in story.merges:
            for author in merged.included:
                if author in labs and labs[author] != lab:
                    table[lab][labs[author]] += 1
    return table
