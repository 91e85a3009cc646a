"""Which versions to fetch now, and from whom. Runs beside training; never waits for anyone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from math import frexp
from random import Random

from braintorrent.protocol.contacts import NEVER, Contacts, drawn
from braintorrent.protocol.effects import Fetch
from braintorrent.protocol.entry import Offer
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.table import Table

HOPELESS = 3  # failures in a row of one source with one content, after which nobody waits for it
BEHIND = 30.0  # seconds that a slow source, which gave way, stays behind the others


@dataclass(frozen=True, slots=True)
class Avoided:
    """A source that did not give some bytes: how often, and until when it is not tried again."""

    failures: int = 0
    until: float = -NEVER


NOT_AVOIDED = Avoided()
NO_TURNS = (-1e9, -1e9)  # long ago, all alike; finite, to have an exponent


class Fetches:
    """Fetches in flight, and the sources to avoid for a while."""

    def __init__(self, policy: Policy, rng: Random, table: Table, contacts: Contacts) -> None:
        self.policy, self.rng, self.table, self.contacts = policy, rng, table, contacts
        self.flying: dict[str, Announcement] = {}  # author -> what is being fetched of it
        self._turns: dict[str, tuple[float, float]] = {}  # author -> when its last one began, and when the one before
        self.avoid: dict[tuple[str, str], Avoided] = {}  # (content digest, source)
        self.paused_until = -NEVER  # this disk is full
        self._kept_until = -NEVER  # a line and a place, for who can only call and found all taken
        self._turn = False  # of who can only call, to have one kept: since the last, another fetch began
        self._soonest = NEVER  # when a source is next tried again; in the past: look it up

    def start(self, now: float, *, everyone: bool = False) -> Iterable[Fetch]:
        """Begin what may begin: one fetch per author, `max_fetches` at once, `max_merge` models in hand.

        everyone: for the last merge, which takes the newest of all, however many.
        """
        kept = now < self._kept_until
        lines = self.policy.max_fetches - len(self.flying) - kept
        if not self.table.offered or lines <= 0 or now < self.paused_until:
            return ()
        room = self._room(everyone) - kept
        allowed = self._allowed(room)
        return self._start(self._by_lot(now, allowed), lines, room, now) if allowed else ()

    def _start(self, authors: Iterator[str], lines: int, room: float, now: float) -> Iterator[Fetch]:
        for author in authors:
            takes = author not in self.table.fresh
            choice = self._choice(author, now) if room > 0 or not takes else None
            if choice is None:
                continue
            offer, source = choice
            room -= takes
            self._begin(offer.announcement, now)
            self._turn = True
            yield Fetch(offer.announcement, source)
            lines -= 1
            if lines == 0 or (takes and room <= 0):  # whoever is left waits for room
                return

    def ask_for(self, caller: str, now: float, *, everyone: bool = False) -> list[Fetch]:
        """Begin what only `caller`, which asks and cannot be dialled, can give: it is to push that.

        All others take at once what is free, and it is not there at that moment: in turn with them, the next line and
        place that are free are kept until somebody like it asks again.
        """
        if not (self.contacts.of[caller].calls_only and self.table.offered) or now < self.paused_until:
            return []
        wanted = []
        for author in self.table.offered:
            offer = None if author in self.flying else self._only_from(caller, author, now)
            if offer is None:
                continue
            room, takes = self._room(everyone), author not in self.table.fresh
            free = len(self.flying) < self.policy.max_fetches and author in self._allowed(room)
            if free and (room > 0 or not takes):
                self._begin(offer.announcement, now)
                self._turn, self._kept_until = False, -NEVER
                wanted.append(Fetch(offer.announcement, caller, pushed=True))
            elif takes and self._turn:
                self._kept_until = now + 2 * self.policy.ask_every
        return wanted

    def _begin(self, announcement: Announcement, now: float) -> None:
        author = announcement.author
        self.flying[author] = announcement
        self._turns[author] = now, max(self._turns.get(author, NO_TURNS))

    def _only_from(self, caller: str, author: str, now: float) -> Offer | None:
        """The newest offer of `author`, if `caller` can give it and nobody who can be dialled can."""
        offer = self.table.offers(author)[0]
        mine = caller in offer.sources and self._avoided(offer, caller).until <= now
        return offer if mine and self._source(offer, now) is None else None

    def _by_lot(self, now: float, allowed: Collection[str]) -> Iterator[str]:
        """With more authors than lines or room, everyone gets a turn.

        Where all are asked, first whose last turn is longest ago: after a cut, who is beyond it. Times are compared as
        powers of two, and the rest left to chance, or all labs would crowd at one. Then, and with a fanout only, first
        who lately spoke for itself: what others tell of may be long superseded, and merging that, many labs with little
        room each would learn of themselves by their past.
        """
        since = now - self.policy.ask_every
        if self.policy.fanout is None:
            waiting = [*drawn([author for author in allowed if author not in self.flying], self.rng)]
            yield from sorted(waiting, key=lambda author: (-self._waits(author, now), self._heard(author) < since))
            return
        lately = [*takewhile(lambda author: self._heard(author) >= since, reversed(self.table.said))]
        yield from drawn([author for author in lately if author not in self.flying], self.rng)
        begun = {*self.flying, *lately}
        yield from drawn([author for author in allowed if author not in begun], self.rng)

    def _waits(self, author: str, now: float) -> int:
        """For how long it had no turn: the exponent of the seconds."""
        return frexp(max(1.0, now - self._turns.get(author, NO_TURNS)[0]))[1]

    def _heard(self, author: str) -> float:
        contact = self.contacts.of.get(author)
        return -NEVER if contact is None else contact.heard

    def _room(self, everyone: bool) -> float:
        """How many more models may be in hand for the next merge, or for the last, which takes everyone."""
        if everyone:
            return NEVER
        return self.policy.max_merge - len(self.table.fresh.keys() | self.flying.keys())

    def _allowed(self, room: float) -> Collection[str]:
        """Authors with offers that there is room for.

        A newer version of a model in hand takes no room, but while others wait for room it waits too: else
        those in hand, published again and again, would stay in hand for ever.
        """
        fresh, offered = self.table.fresh, self.table.offered
        in_hand = len(offered) <= len(fresh) and all(author in fresh for author in offered)
        return offered if room > 0 or in_hand else ()

    def _choice(self, author: str, now: float) -> tuple[Offer, str] | None:
        """The newest offer that somebody can give, and who."""
        pairs = ((offer, self._source(offer, now)) for offer in self.table.offers(author))
        return next(((offer, source) for offer, source in pairs if source is not None), None)

    def _source(self, offer: Offer, now: float) -> str | None:
        """The author if it is there, else any peer that offered the bytes and is not being avoided."""
        possible = []
        for peer in offer.sources:
            contact = self.contacts.of.get(peer)
            if contact is not None and contact.dialable and self._avoided(offer, peer).until <= now:
                possible.append(peer)
        author = offer.announcement.author
        return author if author in possible else self.rng.choice(possible) if possible else None

    def _avoided(self, offer: Offer, source: str) -> Avoided:
        return self.avoid.get((offer.announcement.content, source), NOT_AVOIDED)

    def ended(self, announcement: Announcement) -> None:
        """A fetch came back, whatever its outcome, and the table knows.

        If there is something newer to be fetched already, that was no turn: its author waits where it did before. Once,
        so that nobody who says something newer all the time is always first.
        """
        author = announcement.author
        self.flying.pop(author, None)
        if author in self.table.offered and author in self._turns:
            last, before = self._turns[author]
            if self.table.offers(author)[0].announcement.version > announcement.version:
                self._turns[author] = before, last

    def failed(self, announcement: Announcement, source: str, now: float) -> None:
        """That source did not give the bytes: try another, and this one again later, and ever later."""
        self.avoid = {k: a for k, a in self.avoid.items() if now < a.until + self.policy.max_backoff}
        failures = self.avoid.get((announcement.content, source), NOT_AVOIDED).failures + 1
        self.avoid[announcement.content, source] = Avoided(failures, now + self.policy.backoff(failures))
        self._soonest = -NEVER

    def gave_way(self, announcement: Announcement, source: str, now: float) -> None:
        """That source gives the bytes, but slowly, while others waited: they come first."""
        self._turns[announcement.author] = now, now  # it had a line for longer than any other
        before = self.avoid.get((announcement.content, source), NOT_AVOIDED)
        self.avoid[announcement.content, source] = replace(before, until=now + BEHIND)
        self._soonest = -NEVER

    def forget(self, author: str) -> None:
        """It is off the roster."""
        self._turns.pop(author, None)

    def waiting(self, now: float) -> bool:
        """Whether some author's fetch could begin, were there fewer in flight."""
        lines = self.policy.max_fetches - (now < self._kept_until)
        full = len(self.flying) >= lines and now >= self.paused_until
        waiting = (author for author in self._allowed(self._room(everyone=False)) if author not in self.flying)
        return full and any(self._choice(author, now) is not None for author in waiting)

    def next_deadline(self, now: float) -> float:
        """When something held back may begin."""
        if now < self.paused_until:
            return self.paused_until
        if not self.table.offered:
            return NEVER
        if self._soonest <= now:
            self._soonest = min((a.until for a in self.avoid.values() if a.until > now), default=NEVER)
        return min(self._soonest, self._kept_until) if now < self._kept_until else self._soonest

    def coming(self, now: float, *, everyone: bool = False) -> bool:
        """Whether a fetch is in flight or could begin."""
        allowed = self._allowed(self._room(everyone))
        return bool(self.flying) or any(self._choice(author, now) is not None for author in allowed)

    def hoped_for(self, author: str, now: float) -> bool:
        """Whether anything of this author is offered that some source has not failed to give again and again."""
        if author not in self.table.offered:
            return False
        tried = ((self._avoided(offer, s) for s in offer.sources) for offer in self.table.offers(author))
        return any(a.failures < HOPELESS or a.until <= now for sources in tried for a in sources)
