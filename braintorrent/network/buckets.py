"""A token bucket: what somebody may do at once, and how fast it comes back."""

from __future__ import annotations

from dataclasses import dataclass, field


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
