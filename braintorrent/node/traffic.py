"""Bytes exchanged with each peer, over all lives of this one."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from braintorrent.storage import Ledger


class End(Protocol):
    """A server or client: body bytes by peer id since it was opened."""

    received: Counter[str]
    sent: Counter[str]


class Traffic:
    """Adds up what the network's ends counted, and writes it to the ledger now and then."""

    def __init__(self, ledger: Ledger, *ends: End) -> None:
        self._ledger, self._ends = ledger, ends
        self._before = ledger.traffic()
        self._written: dict[str, tuple[int, int]] = {}

    def of(self, peer: str) -> tuple[int, int]:
        """Bytes (in, out) exchanged with a peer."""
        before, life = self._before.get(peer, (0, 0)), self._life(peer)
        return before[0] + life[0], before[1] + life[1]

    def total(self) -> tuple[int, int]:
        """Bytes (in, out) exchanged with everybody, those included who are no longer trusted."""
        peers = [self.of(peer) for peer in self._before.keys() | self._peers()]
        return sum(p[0] for p in peers), sum(p[1] for p in peers)

    def note(self) -> None:
        """Give the ledger what came since the last call."""
        for peer in self._peers():
            now, written = self._life(peer), self._written.get(peer, (0, 0))
            if now != written:
                self._ledger.count(peer, now[0] - written[0], now[1] - written[1])
                self._written[peer] = now

    def _peers(self) -> set[str]:
        return {peer for end in self._ends for counter in (end.received, end.sent) for peer in counter}

    def _life(self, peer: str) -> tuple[int, int]:
        return sum(end.received[peer] for end in self._ends), sum(end.sent[peer] for end in self._ends)
