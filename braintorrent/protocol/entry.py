"""One author's line in the table: what is offered, held, merged and refused of it.

Most lines hold one offer and nothing else, so a line is small: what it may hold is replaced, never grown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version

MAX_SEEN = 64  # versions per author remembered to notice two contents for one
MAX_REFUSED = 64
MAX_OFFERS = 4  # versions per author that somebody offers and we do not hold yet
MAX_SOURCES = 16
MAX_QUARANTINED = 64  # incarnations per author, after which nothing of it is believed any more

_V = TypeVar("_V")
_NONE: Mapping[Version, Any] = MappingProxyType({})


@dataclass(slots=True)
class Offer:
    """A version not held yet, and the peers that said they can serve it."""

    announcement: Announcement
    sources: tuple[str, ...]


@dataclass(slots=True)
class Entry:
    """One author's line in the table."""

    offers: tuple[Offer, ...] = ()  # newest first
    held: Announcement | None = None
    merged: Version = NOTHING
    worse: Version = NOTHING  # a merge with it did worse here and was undone: no candidate again until it is newer
    passed: Version = NOTHING  # a merge looked at it and left it out for the time being: nothing newer any more
    refused: Mapping[Version, str] = field(default_factory=lambda: _NONE)
    quarantined: frozenset[int] = frozenset()
    seen: Mapping[Version, Announcement] = field(default_factory=lambda: _NONE)  # besides what is offered
    given_up: Version = NOTHING  # merged, and given up for room on this disk: not fetched again

    @property
    def known(self) -> Announcement | None:
        """The newest announcement heard of and not refused, held or not."""
        return self.offers[0].announcement if self.offers else self.held

    @property
    def considered(self) -> Version:
        """The newest version that a merge has dealt with, one way or the other."""
        return max(self.merged, self.worse, self.passed)

    def usable(self, version: Version) -> bool:
        """Whether this version may be fetched, merged and told."""
        return version not in self.refused and not (self.quarantined and self.spoiled(version.incarnation))

    def spoiled(self, incarnation: int) -> bool:
        """Whether nothing of this life of the author is believed."""
        return incarnation in self.quarantined or len(self.quarantined) >= MAX_QUARANTINED

    def offer(self, version: Version) -> Offer | None:
        """The offer of this version, if there is one."""
        for offer in self.offers:
            if offer.announcement.version == version:
                return offer
        return None

    def remember(self, announcement: Announcement) -> None:
        """So that a second content for its version is noticed. What is offered is remembered as long as it is."""
        self.seen = remembering(self.seen, announcement.version, announcement, MAX_SEEN)

    def outdate(self, version: Version) -> None:
        """Nothing offered is wanted unless it is newer than this."""
        self.keep(lambda offered: offered > version)

    def keep(self, wanted: Callable[[Version], bool]) -> None:
        """Of what is offered, only these versions are wanted any more."""
        if self.offers:
            for offer in self.offers:
                if not wanted(offer.announcement.version):
                    self.remember(offer.announcement)
            self.offers = tuple(o for o in self.offers if wanted(o.announcement.version))

    def lacks(self, version: Version) -> bool:
        """Whether this version would be worth fetching: usable, newer than held or given up, not older than merged."""
        held = self.held
        old = version < self.merged or version <= self.given_up or (held is not None and version <= held.version)
        return not old and self.usable(version)


def add_offer(offer: Offer, entry: Entry) -> None:
    """It is offered, too; of too many, the oldest is only remembered."""
    if not entry.offers:
        entry.offers = (offer,)
        return
    offers = sorted((*entry.offers, offer), key=lambda o: o.announcement.version, reverse=True)
    for old in offers[MAX_OFFERS:]:
        entry.remember(old.announcement)
    entry.offers = tuple(offers[:MAX_OFFERS])


def add_source(offer: Offer, source: str) -> None:
    """This peer offers it, too."""
    if source not in offer.sources:
        offer.sources = (*offer.sources, source)
    if len(offer.sources) > MAX_SOURCES:  # the first to offer may be long gone; the author is the best source
        first = offer.sources[:1] if offer.sources[0] == offer.announcement.author else ()
        offer.sources = first + offer.sources[len(first) + 1 :]


def remembering(memory: Mapping[Version, _V], key: Version, value: _V, most: int) -> dict[Version, _V]:
    """The memory with this in it; of too much, without the oldest."""
    grown = {**memory, key: value}
    if len(grown) > most:
        del grown[next(iter(grown))]  # dicts keep insertion order
    return grown
