"""Other peers as seen from here: where they are, whether they answer, when to ask them next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from random import Random

from braintorrent.protocol.policy import Policy
from braintorrent.protocol.version import NOTHING, Version

NEVER = float("inf")
MAX_ADDRESSES_EACH = 8  # of one peer: enough for two networks in two address families
ABSENT_FAILURES = 3  # asks failed in a row, after which a peer long silent is not counted as present
MISSED = 3  # asks to a peer that failed though it was heard between them, after which it is known only to call
RECENT = 86400.0  # seconds since a peer was heard, for which it is looked for often: a cut may last a night


@dataclass(slots=True)
class Contact:
    """One other peer. Times are the machine's; -inf means never."""

    addresses: tuple[str, ...] = ()  # the last that worked first
    proven: bool = False  # the first of them has worked
    rumours: tuple[str, ...] = ()  # of them, what only third peers have said
    next_ask: float = NEVER
    asking: bool = False
    again: bool = False  # ask once more when the ask in flight returns
    heard: float = -NEVER  # last proof of life: an answer or an ask
    answered: float = -NEVER
    began: float = -NEVER  # the last ask
    attempted: float = -NEVER  # last ask that ended, well or not
    failures: int = 0
    missed: int = 0  # asks that failed since one was answered, though it was heard from since the ask before
    phase: str = ""  # as it last said; "" before it spoke
    carried: Version = NOTHING  # my newest version in the ask in flight
    parting: bool = False  # and that ask says that I am leaving
    settled: Version = NOTHING  # with this newest version of mine it lacked nothing that I hold
    holds: Version = NOTHING  # the newest version of mine that it is known to hold
    problem: str = ""  # why the last ask failed, for people

    @property
    def idle(self) -> bool:
        """Whether it may be asked at any moment."""
        return bool(self.addresses) and not self.asking and self.failures == 0

    @property
    def works(self) -> bool:
        """Whether the last ask was answered."""
        return self.answered > -NEVER and self.failures == 0

    @property
    def calls_only(self) -> bool:
        """Whether it is heard, and answers at no address: it dials out, and nobody can dial it."""
        return self.heard > -NEVER and (not self.addresses or self.missed >= (MISSED if self.answered > -NEVER else 1))

    @property
    def dialable(self) -> bool:
        """Whether bytes may be fetched from it at any moment."""
        return bool(self.addresses) and self.failures == 0 and not self.calls_only


class Contacts:
    """Every roster peer sighted so far, and the asking schedule over them.

    The schedule is a heap of (time, peer); a line is void unless it is that contact's `next_ask`.
    """

    def __init__(self, policy: Policy, rng: Random) -> None:
        self.policy, self.rng = policy, rng
        self.of: dict[str, Contact] = {}
        self.next_round = -NEVER  # of asks to `fanout` random peers
        self._names: list[str] = []  # of `of`, to draw from
        self._schedule: list[tuple[float, str]] = []

    def contact(self, peer: str) -> Contact:
        """The peer's contact, made if absent."""
        contact = self.of.get(peer)
        if contact is None:
            contact = self.of[peer] = Contact()
            self._names.append(peer)
        return contact

    def remove(self, peer: str) -> None:
        """It is off the roster."""
        del self.of[peer]
        self._names.remove(peer)

    def some(self, most: int) -> Iterator[str]:
        """Up to `most` random peers."""
        return islice(drawn(self._names, self.rng), most)

    def sighted(self, peer: str, address: str, now: float, *, proven: bool = False, gossip: bool = False) -> None:
        """`peer` may be at `address`. A proven address goes first; a claimed one never displaces it.

        gossip: a third peer says so; that alone neither cuts a back-off short nor displaces what is more than a rumour.
        """
        contact = self.contact(peer)
        before = contact.addresses
        fresh = address not in before
        if not gossip and address in contact.rumours:
            contact.rumours = tuple(a for a in contact.rumours if a != address)
        if not (fresh or proven):
            return
        if fresh and len(before) >= MAX_ADDRESSES_EACH:
            if contact.failures == 0 and not proven:
                return  # claims do not push out addresses that may be good
            worst = next((a for a in reversed(before) if a in contact.rumours), "" if gossip else before[-1])
            if not worst:
                return
            before = tuple(a for a in before if a != worst)
        if fresh and gossip:
            contact.rumours = (*(a for a in contact.rumours if a in before), address)
        if proven:
            contact.addresses, contact.proven = (address, *(a for a in before if a != address)), True
        else:
            place = contact.proven if contact.failures else len(before)  # if the others failed too: before them
            contact.addresses = (*before[:place], address, *before[place:])
        if fresh and contact.failures:
            if not gossip:
                self._at(peer, min(contact.next_ask, now))
        elif fresh and contact.answered == -NEVER:
            self._soon(peer, now)

    def heard_from(self, peer: str, phase: str, now: float) -> Contact:
        """It asked or answered: it is alive, so any back-off ends, but of one that only ever calls."""
        contact = self.contact(peer)
        back = contact.failures > 0 or contact.phase == "leaving"
        missing = back and self._is_missing(contact, now)
        contact.heard, contact.phase = now, phase
        if missing:
            self._look_around(now)
        if contact.calls_only:
            return contact
        contact.failures = 0
        if back and phase != "leaving":
            self._soon(peer, now)
        return contact

    def _is_missing(self, contact: Contact, now: float) -> bool:
        """Whether it was here, and went without a word."""
        heard = contact.heard > -NEVER and contact.phase != "leaving"
        return heard and contact.failures > 0 and not self.is_present(contact, now)

    def _look_around(self, now: float) -> None:
        """Somebody missing is back: perhaps it was the network, and the others are back, too."""
        if self.policy.fanout is None:
            for peer, contact in self.of.items():
                if not contact.asking and self._is_missing(contact, now):
                    self._at(peer, min(contact.next_ask, now))

    def succeeded(self, peer: str, phase: str, now: float) -> Contact:
        """It answered an ask."""
        contact = self.contact(peer)
        contact.answered, contact.missed, contact.problem = now, 0, ""
        self.heard_from(peer, phase, now)
        # The jitter keeps labs that started together from asking in step for ever.
        all_of_them = self.policy.fanout is None
        self._ended(peer, now, self.policy.ask_every * self.rng.uniform(0.9, 1.1) if all_of_them else NEVER)
        return contact

    def failed(self, peer: str, problem: str, now: float) -> None:
        """An ask failed: back off exponentially, so a dead peer costs next to nothing."""
        contact = self.contact(peer)
        contact.failures += 1
        contact.missed += contact.heard > contact.attempted
        contact.problem, contact.again = problem, False
        wait = self.policy.backoff(contact.failures) * self.rng.uniform(0.9, 1.1)
        looked_for = contact.phase != "leaving" and now - contact.heard <= RECENT and not contact.calls_only
        if self.policy.fanout is None and looked_for:
            # Counted from when the ask began: into a cut network it fails only at its deadline.
            wait = min(wait, max(self.policy.ask_every / 2, contact.began + 2 * self.policy.ask_every - now))
        self._ended(peer, now, wait)

    def _ended(self, peer: str, now: float, wait: float) -> None:
        contact = self.of[peer]
        contact.asking, contact.attempted = False, now
        self._at(peer, now if contact.again else now + wait)
        contact.again = False

    def _soon(self, peer: str, now: float) -> None:
        # With a fanout it waits for its turn in a round: arrivals and returns must not add to the asks.
        self._at(peer, min(self.of[peer].next_ask, now) if self.policy.fanout is None else NEVER)

    def _at(self, peer: str, when: float) -> None:
        self.of[peer].next_ask = when
        if when == NEVER:
            return
        heappush(self._schedule, (when, peer))
        if len(self._schedule) > 64 + 4 * len(self.of):  # mostly void lines
            self._schedule = [(c.next_ask, p) for p, c in self.of.items() if c.next_ask < NEVER]
            heapify(self._schedule)

    def ask_all_now(self, now: float) -> None:
        """There is something to say. Peers that are backing off wait for their turn."""
        if self.policy.fanout is not None:
            self.next_round = now
            return
        for peer in self._names:
            self.ask_now(peer, now)

    def ask_now(self, peer: str, now: float) -> None:
        """There is something to say to this peer, unless it is backing off."""
        contact = self.of.get(peer)
        if contact is not None and contact.asking:
            contact.again = True
        elif contact is not None and contact.idle:
            self._at(peer, now)

    def due(self, now: float) -> list[str]:
        """Peers to ask now; each is marked as being asked."""
        fanout = self.policy.fanout
        if fanout is not None and now >= self.next_round:
            idle = (peer for peer in drawn(self._names, self.rng) if self.of[peer].idle)
            turn = [*islice(idle, fanout)]
            for peer in turn:
                self._at(peer, now)
            if turn:  # else the round is held as soon as somebody can be asked
                # Not sooner than `ask_every`: with versions as far apart, their rounds are all that is needed.
                self.next_round = now + self.policy.ask_every * self.rng.uniform(1.0, 1.2)
        found = []
        while self._schedule and self._schedule[0][0] <= now:
            when, peer = heappop(self._schedule)
            if self._valid(when, peer):
                contact = self.of[peer]
                contact.asking, contact.next_ask, contact.began = True, NEVER, now
                found.append(peer)
        return found

    def _valid(self, when: float, peer: str) -> bool:
        contact = self.of.get(peer)
        return contact is not None and contact.next_ask == when and not contact.asking and bool(contact.addresses)

    def is_present(self, contact: Contact, now: float) -> bool:
        """Heard from lately, and not leaving."""
        return contact.phase != "leaving" and self.is_near(contact, now)

    def is_near(self, contact: Contact, now: float) -> bool:
        """Heard from lately. Lost messages alone make nobody absent.

        With a fanout our turn with a peer comes once in many rounds: until then it is here unless asks fail.
        """
        silence = now - contact.heard
        if silence > self.policy.absent_after and self.policy.fanout is not None:
            turn = max(1.0, len(self.of) / self.policy.fanout)
            gone = contact.failures >= ABSENT_FAILURES and contact.missed < MISSED
            silence = NEVER if gone else silence / turn
        return silence <= self.policy.absent_after

    def present(self, now: float) -> list[str]:
        """Peers counted as here."""
        return [peer for peer, contact in self.of.items() if self.is_present(contact, now)]

    def next_deadline(self, now: float) -> float:
        """When `due` next has something, after `due(now)`."""
        while self._schedule and not self._valid(*self._schedule[0]):
            heappop(self._schedule)
        soonest = self._schedule[0][0] if self._schedule else NEVER
        held = self.policy.fanout is not None and self.next_round > now
        return min(soonest, self.next_round) if held else soonest


def drawn(names: list[str], rng: Random) -> Iterator[str]:
    """The names in random order, drawn only as far as needed: Fisher-Yates, which leaves the list in another order."""
    left, random = len(names), rng.random
    for index in range(left):
        other = index + int(random() * left)
        left -= 1
        name, names[other] = names[other], names[index]
        names[index] = name
        yield name
