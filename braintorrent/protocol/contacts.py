"""Other peers as seen from here: where they are, whether they answer, when to ask them next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from braintorrent.protocol.policy import Policy

NEVER = float("inf")
MAX_ADDRESSES = 8  # per peer: enough for two networks in two address families


@dataclass(slots=True)
class Contact:
    """One other peer. Times are the machine's; -inf means never."""

    addresses: list[str] = field(default_factory=list)  # the last that worked first
    next_ask: float = NEVER
    asking: bool = False
    again: bool = False  # ask once more when the ask in flight returns
    heard: float = -NEVER  # last proof of life: an answer or an ask
    answered: float = -NEVER
    attempted: float = -NEVER  # last ask that ended, well or not
    failures: int = 0
    phase: str = ""  # as it last said; "" before it spoke
    settled: bool = False  # it holds my newest version
    problem: str = ""  # why the last ask failed, for people


class Contacts:
    """Every roster peer sighted so far, and the asking schedule over them."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self.policy, self.rng = policy, rng
        self.of: dict[str, Contact] = {}
        self.next_round = -NEVER  # of asks to `fanout` random peers

    def sighted(self, peer: str, address: str, now: float, *, proven: bool = False) -> None:
        """`peer` may be at `address`. A proven address goes first; a claimed one never displaces it."""
        contact = self.of.setdefault(peer, Contact())
        fresh = address not in contact.addresses
        if proven and not fresh:
            contact.addresses.remove(address)
        elif fresh and len(contact.addresses) >= MAX_ADDRESSES:
            if contact.failures == 0 and not proven:
                return  # rumours do not push out addresses that may be good
            contact.addresses.pop()
        if proven or (fresh and contact.failures):
            contact.addresses.insert(0, address)  # the old ones failed: try this one first
        elif fresh:
            contact.addresses.append(address)
        if fresh and contact.answered == -NEVER and contact.failures == 0:
            self._soon(contact, now)
        elif fresh and contact.failures:
            contact.next_ask = min(contact.next_ask, now)

    def heard_from(self, peer: str, phase: str, now: float) -> Contact:
        """It asked or answered: it is alive, so any back-off ends."""
        contact = self.of.setdefault(peer, Contact())
        back = contact.failures > 0 or contact.phase == "leaving"
        contact.heard, contact.phase, contact.failures = now, phase, 0
        if back and phase != "leaving":
            self._soon(contact, now)
        return contact

    def succeeded(self, peer: str, phase: str, now: float) -> Contact:
        """It answered an ask."""
        contact = self.heard_from(peer, phase, now)
        contact.answered, contact.problem = now, ""
        self._ended(contact, now, self.policy.ask_every)
        return contact

    def failed(self, peer: str, problem: str, now: float) -> None:
        """An ask failed: back off exponentially, so a dead peer costs next to nothing."""
        contact = self.of.setdefault(peer, Contact())
        contact.failures += 1
        contact.problem = problem
        contact.again = False
        wait = min(self.policy.ask_every * 2 ** min(contact.failures, 16), self.policy.max_backoff)
        self._ended(contact, now, wait)

    def _ended(self, contact: Contact, now: float, wait: float) -> None:
        contact.asking, contact.attempted = False, now
        if contact.again:
            contact.again, contact.next_ask = False, now
        elif self.policy.fanout is None:
            # The jitter keeps labs that started together from asking in step for ever.
            contact.next_ask = now + wait * self.rng.uniform(0.9, 1.1)
        else:
            contact.next_ask = NEVER if contact.failures == 0 else now + wait

    def _soon(self, contact: Contact, now: float) -> None:
        if self.policy.fanout is None:
            contact.next_ask = min(contact.next_ask, now)
        else:
            contact.next_ask = NEVER
            self.next_round = min(self.next_round, now) if self.next_round > -NEVER else now

    def ask_all_now(self, now: float) -> None:
        """There is something to say. Peers that are backing off wait for their turn."""
        if self.policy.fanout is not None:
            self.next_round = now
            return
        for contact in self.of.values():
            if contact.asking:
                contact.again = True
            elif contact.failures == 0 and contact.addresses:
                contact.next_ask = now

    def due(self, now: float) -> Iterator[str]:
        """Peers to ask now; each is marked as being asked."""
        fanout = self.policy.fanout
        if fanout is not None and now >= self.next_round:
            idle = [p for p, c in self.of.items() if c.addresses and not c.asking and c.failures == 0]
            for peer in self.rng.sample(idle, min(fanout, len(idle))):
                self.of[peer].next_ask = now
            self.next_round = now + self.policy.ask_every * self.rng.uniform(0.9, 1.1)
        for peer, contact in self.of.items():
            if contact.next_ask <= now and not contact.asking and contact.addresses:
                contact.asking, contact.next_ask = True, NEVER
                yield peer

    def present(self, now: float) -> list[str]:
        """Peers counted as here: heard from lately, still answering, and not leaving."""
        horizon = now - self.policy.absent_after
        return [p for p, c in self.of.items() if c.heard >= horizon and c.failures < 3 and c.phase != "leaving"]

    def next_deadline(self) -> float:
        """When `due` next has something."""
        soonest = min((c.next_ask for c in self.of.values() if c.addresses and not c.asking), default=NEVER)
        return soonest if self.policy.fanout is None or not self.of else min(soonest, self.next_round)
