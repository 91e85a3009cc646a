"""Token buckets: what somebody may do at once, and how fast it comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from braintorrent.network import limits


@dataclass(slots=True)
class Bucket:
    """Holds at most `burst` and fills by `rate` a second; full at first. Times are any clock's, in seconds."""

    rate: float
    burst: float
    _level: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._level = self.burst

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if it is there."""
        self._fill(now)
        if amount > self._level:
            return False
        self._level -= amount
        return True

    def draw(self, amount: float, now: float) -> float:
        """Take `amount`, on credit if need be: seconds until it is paid off, 0 if it was there."""
        self._fill(now)
        self._level -= amount
        return max(0.0, -self._level / self.rate)

    def put_back(self, amount: float) -> None:
        """What was taken was not used."""
        self._level = min(self.burst, self._level + amount)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now


class Pace:
    """How fast each peer is served: requests, and blob bytes where `bytes_per_second` sets a bound."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._bytes_per_second = bytes_per_second
        self._requests: dict[str, Bucket] = {}
        self._bytes: dict[str, Bucket] = {}

    def request(self, peer: str) -> float | None:
        """Seconds to wait before answering one more; None if it sends them all at once: that is a flood."""
        bucket = self._requests.setdefault(peer, Bucket(limits.REQUESTS_PER_SECOND, limits.REQUESTS))
        wait = bucket.draw(1, time.monotonic())
        if wait > limits.REQUEST_WAIT:
            bucket.put_back(1)
            return None
        return wait

    def sent(self, peer: str, size: int) -> float:
        """Seconds to wait after `size` blob bytes."""
        if self._bytes_per_second is None:
            return 0.0
        bucket = self._bytes.setdefault(peer, Bucket(self._bytes_per_second, limits.BLOCK))
        return bucket.draw(size, time.monotonic())

    def forget(self, peer: str) -> None:
        """`peer` is off the roster."""
        self._requests.pop(peer, None)
        self._bytes.pop(peer, None)
