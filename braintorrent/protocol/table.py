"""What this peer knows, holds and has merged of every author, and what it refused.

Invariants, for each author:
    offers are newer than held; held is never older than merged
    a refused version is never wanted, and never a candidate
    a quarantined incarnation is never wanted, a candidate, or told to others
    `offered` and `fresh` name exactly the authors with offers, and those with a candidate, `buckets` what is
    held: events are frequent and authors many, so nothing that happens at every event may look at every line
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from braintorrent.protocol.buckets import Buckets
from braintorrent.protocol.entry import MAX_REFUSED, Entry, Offer, add_offer, add_source, remembering
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version


@dataclass(frozen=True, slots=True)
class Equivocation:
    """One version, two contents. dropped: what was held of that life of the author, and is no more."""

    first: Announcement
    second: Announcement
    dropped: Announcement | None


class Table:
    """author -> Entry, for every author but oneself."""

    def __init__(self, entries: dict[str, Entry] | None = None) -> None:
        self.entries: dict[str, Entry] = {} if entries is None else entries
        self.buckets = Buckets()
        self.buckets.know(len(self.entries))
        self.offered: dict[str, None] = {}  # as sets, in an order that does not hang on hashing
        self.said: dict[str, None] = {}  # those of them who offered it themselves, the last to do so last
        self.fresh: dict[str, None] = {}
        for author, entry in self.entries.items():
            self._index(author, entry)
            if entry.held is not None:
                self.buckets.add(author, entry.held.version)

    def entry(self, author: str) -> Entry:
        """The author's line, made if absent."""
        entry = self.entries.get(author)
        if entry is None:
            entry = self.entries[author] = Entry()
            self.buckets.know(len(self.entries))
        return entry

    def remove(self, author: str) -> Announcement | None:
        """Forget all about an author. Returns what was held of it."""
        entry = self.entries.pop(author)
        self.buckets.remove(author)
        for index in (self.offered, self.said, self.fresh):
            index.pop(author, None)
        return entry.held

    def inherit(self, author: str, heir: str) -> None:
        """An author goes on as another, and what of it is in quarantine counts against that one, too."""
        if author in self.entries:
            for incarnation in self.entries[author].quarantined:
                self.quarantine(heir, incarnation)

    def _index(self, author: str, entry: Entry) -> None:
        _file(self.offered, author, bool(entry.offers))
        if not entry.offers:
            self.said.pop(author, None)
        _file(self.fresh, author, entry.held is not None and entry.held.version > entry.considered)

    def _let_go(self, author: str, entry: Entry) -> None:
        """Nothing of the author is held."""
        entry.held = None
        self.buckets.remove(author)

    def note(self, announcement: Announcement, source: str) -> Equivocation | None:
        """`source` offers this version. Equivocation if it contradicts what was seen of the same version."""
        author, version = announcement.author, announcement.version
        entry = self.entries.get(author)
        if entry is None and version > NOTHING:  # as most often: there is nothing that could speak against it
            self.entries[author] = Entry((Offer(announcement, (source,)),))
            self.buckets.know(len(self.entries))
            self._offered_by(source, author)
            return None
        entry = entry or self.entry(author)
        if entry.quarantined and entry.spoiled(version.incarnation):
            return None
        offer = entry.offer(version)
        before = entry.seen.get(version) if offer is None else offer.announcement
        if before is not None and before.content != announcement.content:
            return Equivocation(before, announcement, self.quarantine(author, version.incarnation))
        if offer is not None:  # it is wanted, or it would be no offer any more
            add_source(offer, source)
        elif entry.lacks(version):
            add_offer(Offer(announcement, (source,)), entry)
        else:
            if before is None:
                entry.remember(announcement)
            return None
        self._offered_by(source, author)
        return None

    def _offered_by(self, source: str, author: str) -> None:
        self.offered[author] = None
        if source == author:
            self.said.pop(author, None)
            self.said[author] = None

    def hold(self, announcement: Announcement) -> Announcement | None:
        """The bytes are verified on this disk. Returns the announcement whose bytes are now of no use, if any."""
        entry = self.entry(announcement.author)
        if announcement == entry.held:
            return None
        if not entry.lacks(announcement.version):
            return announcement
        before, entry.held = entry.held, announcement
        self.buckets.add(announcement.author, announcement.version)
        entry.outdate(announcement.version)
        entry.remember(announcement)
        self._index(announcement.author, entry)
        return before

    def merge(self, announcement: Announcement) -> None:
        """It went into one of my merges."""
        entry = self.entry(announcement.author)
        entry.merged = max(entry.merged, announcement.version)
        entry.keep(lambda offered: offered >= entry.merged)
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
        entry.refused = remembering(entry.refused, version, reason, MAX_REFUSED)
        entry.keep(lambda offered: offered != version)
        if entry.held is not None and entry.held.version == version:
            self._let_go(announcement.author, entry)
        self._index(announcement.author, entry)

    def lose(self, announcement: Announcement) -> bool:
        """Its bytes are gone from this disk: fetch them again. Whether it was held."""
        entry = self.entries.get(announcement.author)
        if entry is None or entry.held != announcement:
            return False
        self._let_go(announcement.author, entry)
        self._index(announcement.author, entry)
        return True

    def give_up(self, announcement: Announcement) -> None:
        """Do without it until its author has a newer one, or `want_all`."""
        entry, version = self.entry(announcement.author), announcement.version
        entry.given_up = max(entry.given_up, version)
        entry.outdate(version)
        if entry.held == announcement:
            self._let_go(announcement.author, entry)
        self._index(announcement.author, entry)

    def want_all(self) -> None:
        """Want again what was given up."""
        for entry in self.entries.values():
            entry.given_up = NOTHING

    def spare(self, authors: Iterable[str], *, fresh: bool = False) -> Announcement | None:
        """The oldest version held of these authors that a merge was made with already; `fresh`: or was not."""
        entries = (entry for author in authors if (entry := self.entries.get(author)) is not None)
        spare = (e.held for e in entries if e.held is not None and (fresh or e.held.version <= e.considered))
        return min(spare, key=lambda a: (a.version, a.author), default=None)

    def has_merged(self, announcement: Announcement) -> bool:
        """Whether it, or a newer one of its author, went into a merge."""
        entry = self.entries.get(announcement.author)
        return entry is not None and announcement.version <= entry.merged

    def quarantine(self, author: str, incarnation: int) -> Announcement | None:
        """Believe nothing more of this life of the author until a person lifts it. Returns what was held of it."""
        entry = self.entry(author)
        held = entry.held
        entry.quarantined |= {incarnation}
        entry.keep(entry.usable)
        if held is not None and not entry.usable(held.version):
            self._let_go(author, entry)
        self._index(author, entry)
        return held if entry.held is None else None

    def lacks(self, author: str, version: Version) -> bool:
        """Whether this version would be worth fetching."""
        entry = self.entries.get(author)
        return entry is None or entry.lacks(version)

    def offers(self, author: str) -> tuple[Offer, ...]:
        """What is offered of an author and newer than held, newest first."""
        return self.entries[author].offers

    def newest_held(self) -> list[Announcement]:
        """The newest held version of every author, in order of author."""
        held = (self.entries[author].held for author in sorted(self.buckets.inside((0, 1))))
        return [a for a in held if a is not None]

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


def _file(index: dict[str, None], author: str, belongs: bool) -> None:
    if belongs:
        index[author] = None
    else:
        index.pop(author, None)
