"""What this peer knows, holds and has merged of every author, and what it refused.

Invariants, for each author:
    offers are newer than held; held is never older than merged
    a refused version is never wanted, and never a candidate
    a quarantined incarnation is never wanted, a candidate, or told to others
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version

MAX_SEEN = 64  # versions per author remembered to notice two contents for one
MAX_REFUSED = 64
MAX_OFFERS = 4  # versions per author that somebody offers and we do not hold yet
MAX_SOURCES = 16

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
    refused: dict[Version, str] = field(default_factory=dict)
    quarantined: set[int] = field(default_factory=set)
    seen: dict[Version, Announcement] = field(default_factory=dict)

    @property
    def known(self) -> Announcement | None:
        """The newest announcement heard of and not refused, held or not."""
        if self.offers:
            return self.offers[max(self.offers)].announcement
        return self.held

    def usable(self, version: Version) -> bool:
        """Whether this version may be fetched, merged and told."""
        return version not in self.refused and version.incarnation not in self.quarantined


@dataclass(frozen=True, slots=True)
class Equivocation:
    """One version, two contents."""

    first: Announcement
    second: Announcement


class Table:
    """author -> Entry, for every author but oneself."""

    def __init__(self, entries: dict[str, Entry] | None = None) -> None:
        self.entries: dict[str, Entry] = entries or {}

    def entry(self, author: str) -> Entry:
        """The author's line, made if absent."""
        return self.entries.setdefault(author, Entry())

    def note(self, announcement: Announcement, source: str) -> Equivocation | None:
        """`source` offers this version. Equivocation if it contradicts what was seen of the same version."""
        entry, version = self.entry(announcement.author), announcement.version
        before = entry.seen.get(version)
        if before is not None and before.content != announcement.content:
            if version.incarnation in entry.quarantined:
                return None
            self.quarantine(announcement.author, version.incarnation)
            return Equivocation(before, announcement)
        _remember(entry.seen, version, announcement, MAX_SEEN)
        if not entry.usable(version) or (entry.held is not None and version <= entry.held.version):
            return None
        offer = entry.offers.setdefault(version, Offer(announcement, []))
        if source not in offer.sources and len(offer.sources) < MAX_SOURCES:
            offer.sources.append(source)
        if len(entry.offers) > MAX_OFFERS:
            del entry.offers[min(entry.offers)]
        return None

    def hold(self, announcement: Announcement) -> Announcement | None:
        """The bytes are verified on this disk. Returns the older announcement that this one supersedes."""
        entry = self.entry(announcement.author)
        if not entry.usable(announcement.version):
            return announcement
        if entry.held is not None and entry.held.version >= announcement.version:
            return None
        before, entry.held = entry.held, announcement
        entry.offers = {v: o for v, o in entry.offers.items() if v > announcement.version}
        _remember(entry.seen, announcement.version, announcement, MAX_SEEN)
        return before

    def merge(self, announcement: Announcement) -> None:
        """It went into one of my merges."""
        entry = self.entry(announcement.author)
        entry.merged = max(entry.merged, announcement.version)

    def refuse(self, announcement: Announcement, reason: str) -> None:
        """Never fetch or merge this version; `reason` is kept."""
        entry, version = self.entry(announcement.author), announcement.version
        _remember(entry.refused, version, reason, MAX_REFUSED)
        entry.offers.pop(version, None)
        if entry.held is not None and entry.held.version == version:
            entry.held = None

    def quarantine(self, author: str, incarnation: int) -> None:
        """Believe nothing more of this life of the author until a person lifts it."""
        entry = self.entry(author)
        entry.quarantined.add(incarnation)
        entry.offers = {v: o for v, o in entry.offers.items() if v.incarnation != incarnation}
        if entry.held is not None and entry.held.version.incarnation == incarnation:
            entry.held = None

    def wanted(self) -> Iterator[list[Offer]]:
        """For each author with something newer than held: its offers, newest first."""
        for entry in self.entries.values():
            if entry.offers:
                yield [entry.offers[v] for v in sorted(entry.offers, reverse=True)]

    def newest_held(self) -> list[Announcement]:
        """The newest held version of every author, in order of author."""
        held = (e.held for e in self.entries.values() if e.held is not None)
        return sorted(held, key=lambda a: a.author)

    def candidates(self) -> list[Announcement]:
        """Held and newer than my last merge of their author, in order of author."""
        return [a for a in self.newest_held() if a.version > self.entries[a.author].merged]

    def holds(self, authors: Iterable[str]) -> dict[str, Version]:
        """What an Ask says about these authors."""
        entries = ((author, self.entries.get(author)) for author in authors)
        return {author: e.held.version for author, e in entries if e is not None and e.held is not None}


def _remember(memory: dict[Version, _V], key: Version, value: _V, most: int) -> None:
    memory[key] = value
    if len(memory) > most:
        del memory[next(iter(memory))]  # the oldest: dicts keep insertion order
