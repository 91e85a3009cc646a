"""What this peer knows, holds and has merged of every author, and what it refused.

Invariants, for each author:
    offers are newer than held; held is never older than merged
    a refused version is never wanted, and never a candidate
    a quarantined incarnation is never wanted, a candidate, or told to others
    `offered` and `fresh` name exactly the authors with offers, and those with a candidate: events are
    frequent and authors many, so nothing that happens at every event may look at every line
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from braintorrent.protocol.buckets import Buckets
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version

MAX_SEEN = 64  # versions per author remembered to notice two contents for one
MAX_REFUSED = 64
MAX_OFFERS = 4  # versions per author that somebody offers and we do not hold yet
MAX_SOURCES = 16
MAX_QUARANTINED = 64  # incarnations per author, after which nothing of it is believed any more

_V = TypeVar("_V")


@dataclass(slots=True)
class Offer:
    """A version not held yet, and the peers that said they can serve it."""

    announcement: Announcement
    sources: list[str]


@dataclass(slots=True)
class Entry:
    """One author's line in the table."""

    offers: dict[Version, Offer] = field(default_factory=dict)
    held: Announcement | None = None
    merged: Version = NOTHING
    worse: Version = NOTHING  # a merge with it did worse here and was undone: no candidate again until it is newer
    passed: Version = NOTHING  # a merge looked at it and left it out for the time being: nothing newer any more
    refused: dict[Version, str] = field(default_factory=dict)
    quarantined: set[int] = field(default_factory=set)
    seen: dict[Version, Announcement] = field(default_factory=dict)
    given_up: Version = NOTHING  # merged, and given up for room on this disk: not fetched again

    @property
    def known(self) -> Announcement | None:
        """The newest announcement heard of and not refused, held or not."""
        if self.offers:
            return self.offers[max(self.offers)].announcement
        return self.held

    @property
    def considered(self) -> Version:
        """The newest version that a merge has dealt with, one way or the other."""
        return max(self.merged, self.worse, self.passed)

    def usable(self, version: Version) -> bool:
        """Whether this version may be fetched, merged and told."""
        return not self.spoiled(version.incarnation) and version not in self.refused

    def spoiled(self, incarnation: int) -> bool:
        """Whether nothing of this life of the author is believed."""
        return incarnation in self.quarantined or len(self.quarantined) >= MAX_QUARANTINED

    def lacks(self, version: Version) -> bool:
        """Whether this version would be worth fetching: usable, newer than held or given up, not older than merged."""
        newer = version > self.given_up and (self.held is None or version > self.held.version)
        return newer and version >= self.merged and self.usable(version)


@dataclass(frozen=True, slots=True)
class Equivocation:
    """One version, two contents."""

    first: Announcement
    second: Announcement


class Table:
    """author -> Entry, for every author but oneself."""

    def __init__(self, entries: dict[str, Entry] | None = None) -> None:
        self.entries: dict[str, Entry] = {} if entries is None else entries
        self.buckets = Buckets(self.entries)
        self.offered: dict[str, None] = {}  # as sets, in an order that does not hang on hashing
        self.fresh: dict[str, None] = {}
        for author, entry in self.entries.items():
            self._index(author, entry)

    def entry(self, author: str) -> Entry:
        """The author's line, made if absent."""
        if author not in self.entries:
            self.entries[author] = Entry()
            self.buckets.add(author)
        return self.entries[author]

    def remove(self, author: str) -> Announcement | None:
        """Forget all about an author. Returns what was held of it."""
        entry = self.entries.pop(author)
        self.buckets.remove(author)
        self.offered.pop(author, None)
        self.fresh.pop(author, None)
        return entry.held

    def inherit(self, author: str, heir: str) -> None:
        """An author goes on as another, and what of it is in quarantine counts against that one, too."""
        if author in self.entries:
            for incarnation in self.entries[author].quarantined:
                self.quarantine(heir, incarnation)

    def _index(self, author: str, entry: Entry) -> None:
        _file(self.offered, author, bool(entry.offers))
        _file(self.fresh, author, entry.held is not None and entry.held.version > entry.considered)

    def note(self, announcement: Announcement, source: str) -> Equivocation | None:
        """`source` offers this version. Equivocation if it contradicts what was seen of the same version."""
        entry, version = self.entry(announcement.author), announcement.version
        if entry.spoiled(version.incarnation):
            return None
        before = entry.seen.get(version)
        if before is not None and before.content != announcement.content:
            self.quarantine(announcement.author, version.incarnation)
            return Equivocation(before, announcement)
        _remember(entry.seen, version, announcement, MAX_SEEN)
        if not entry.lacks(version):
            return None
        offer = entry.offers.setdefault(version, Offer(announcement, []))
        if source not in offer.sources:
            offer.sources.append(source)
        if len(offer.sources) > MAX_SOURCES:  # the first to offer may be long gone; the author is the best source
            del offer.sources[1 if offer.sources[0] == announcement.author else 0]
        if len(entry.offers) > MAX_OFFERS:
            del entry.offers[min(entry.offers)]
        self._index(announcement.author, entry)
        return None

    def hold(self, announcement: Announcement) -> Announcement | None:
        """The bytes are verified on this disk. Returns the announcement whose bytes are now of no use, if any."""
        entry = self.entry(announcement.author)
        if announcement == entry.held:
            return None
        if not entry.lacks(announcement.version):
            return announcement
        before, entry.held = entry.held, announcement
        entry.offers = {v: o for v, o in entry.offers.items() if v > announcement.version}
        _remember(entry.seen, announcement.version, announcement, MAX_SEEN)
        self._index(announcement.author, entry)
        return before

    def merge(self, announcement: Announcement) -> None:
        """It went into one of my merges."""
        entry = self.entry(announcement.author)
        entry.merged = max(entry.merged, announcement.version)
        entry.offers = {v: o for v, o in entry.offers.items() if v >= entry.merged}
        self._index(announcement.author, entry)

    def set_aside(self, announcement: Announcement) -> None:
        """A merge with it did worse here: others get their turn until there is something newer of its author."""
        entry = self.entry(announcement.author)
        entry.worse = max(entry.worse, announcement.version)
        self._index(announcement.author, entry)

    def pass_over(self, announcement: Announcement) -> None:
        """A merge looked at it and took others; it may be looked at again, beside something newer of anyone."""
        entry = self.entry(announcement.author)
        entry.passed = max(entry.passed, announcement.version)
        self._index(announcement.author, entry)

    def reconsider(self) -> None:
        """What merges passed over may be looked at again."""
        for author, entry in self.entries.items():
            entry.passed = NOTHING
            self._index(author, entry)

    def refuse(self, announcement: Announcement, reason: str) -> None:
        """Never fetch or merge this version; `reason` is kept."""
        entry, version = self.entry(announcement.author), announcement.version
        _remember(entry.refused, version, reason, MAX_REFUSED)
        entry.offers.pop(version, None)
        if entry.held is not None and entry.held.version == version:
            entry.held = None
        self._index(announcement.author, entry)

    def lose(self, announcement: Announcement) -> bool:
        """Its bytes are gone from this disk: fetch them again. Whether it was held."""
        entry = self.entries.get(announcement.author)
        if entry is None or entry.held != announcement:
            return False
        entry.held = None
        self._index(announcement.author, entry)
        return True

    def give_up(self, announcement: Announcement) -> None:
        """Do without it until its author has a newer one, or `want_all`."""
        entry, version = self.entry(announcement.author), announcement.version
        entry.given_up = max(entry.given_up, version)
        entry.offers = {v: o for v, o in entry.offers.items() if v > version}
        if entry.held == announcement:
            entry.held = None
        self._index(announcement.author, entry)

    def want_all(self) -> None:
        """Want again what was given up."""
        for entry in self.entries.values():
            entry.given_up = NOTHING

    def spare(self, authors: Iterable[str]) -> Announcement | None:
        """The oldest version held of these authors that a merge was made with already."""
        entries = (entry for author in authors if (entry := self.entries.get(author)) is not None)
        spare = (e.held for e in entries if e.held is not None and e.held.version <= e.considered)
        return min(spare, key=lambda a: (a.version, a.author), default=None)

    def has_merged(self, announcement: Announcement) -> bool:
        """Whether it, or a newer one of its author, went into a merge."""
        entry = self.entries.get(announcement.author)
        return entry is not None and announcement.version <= entry.merged

    def quarantine(self, author: str, incarnation: int) -> None:
        """Believe nothing more of this life of the author until a person lifts it."""
        entry = self.entry(author)
        entry.quarantined.add(incarnation)
        entry.offers = {v: o for v, o in entry.offers.items() if entry.usable(v)}
        if entry.held is not None and not entry.usable(entry.held.version):
            entry.held = None
        self._index(author, entry)

    def lacks(self, author: str, version: Version) -> bool:
        """Whether this version would be worth fetching."""
        entry = self.entries.get(author)
        return entry is None or entry.lacks(version)

    def offers(self, author: str) -> list[Offer]:
        """What is offered of an author and newer than held, newest first."""
        offers = self.entries[author].offers
        return [offers[v] for v in sorted(offers, reverse=True)]

    def newest_held(self) -> list[Announcement]:
        """The newest held version of every author, in order of author."""
        held = (e.held for e in self.entries.values() if e.held is not None)
        return sorted(held, key=lambda a: a.author)

    def candidates(self) -> list[Announcement]:
        """Held and newer than my last merge that dealt with their author, in order of author."""
        return [a for author in sorted(self.fresh) if (a := self.entries[author].held) is not None]

    def drawn(self, most: int, rng: Random, *, everyone: bool = False) -> tuple[Announcement, ...]:
        """The candidates, in order of author; of more than `most`, so many at random.

        everyone: where there are any, what was merged before and is still held is with them, as far as there is room.
        """
        found = self.candidates()
        if len(found) > most:
            found = rng.sample(found, most)
        elif found and everyone:
            again = [a for a in self.newest_held() if a.author not in self.fresh and self._again(a)]
            found += rng.sample(again, min(len(again), most - len(found)))
        return tuple(sorted(found, key=lambda a: a.author))

    def _again(self, announcement: Announcement) -> bool:
        return announcement.version > self.entries[announcement.author].worse

    def holds(self, authors: Iterable[str]) -> dict[str, Version]:
        """What an Ask says about these authors."""
        entries = ((author, self.entries.get(author)) for author in authors)
        return {author: e.held.version for author, e in entries if e is not None and e.held is not None}


def _file(index: dict[str, None], author: str, belongs: bool) -> None:
    if belongs:
        index[author] = None
    else:
        index.pop(author, None)


def _remember(memory: dict[Version, _V], key: Version, value: _V, most: int) -> None:
    memory[key] = value
    if len(memory) > most:
        del memory[next(iter(memory))]  # the oldest: dicts keep insertion order
