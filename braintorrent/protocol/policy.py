"""The knobs of one peer's behaviour. All local: no peer needs to agree with another on any of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a peer has trained enough; the first rule met counts, none given means never."""

    versions: int | None = None
    minutes: float | None = None
    target: float | None = None
    patience: int | None = None

    def met(self, counter: int, seconds: float, best: float | None, since_best: int) -> bool:
        """counter: versions trained; seconds: of running, in all lives; since_best: versions without a better score."""
        return (
            (self.versions is not None and counter >= self.versions)
            or (self.minutes is not None and seconds >= 60 * self.minutes)
            or (self.target is not None and best is not None and best >= self.target)
            or (self.patience is not None and since_best >= self.patience)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """Times are seconds. Reasons and user-facing defaults stand in config.TimingSection."""

    ask_every: float = 5.0
    ask_deadline: float = 10.0
    fanout: int | None = None  # None: ask everyone, as in the paper
    max_merge: int = 32
    everyone: bool = False  # the method merges the newest held model of everyone, once somebody has a newer one
    mean_interval: float | None = None  # None: continuous; else the mean of an exponential clock
    quorum: int = 0
    patience: float = 60.0
    alone_after: float = 30.0
    linger: float = 600.0
    hand_over: float = 60.0  # of a peer that is stopped, for another to hold its newest version
    stop: StopRule = field(default_factory=StopRule)
    max_fetches: int = 6  # at once: small models wait for round trips, and more large ones only share the same downlink
    storage_retry: float = 10.0  # before trying a full disk again
    max_backoff: float = 300.0  # an absent peer is asked, and a failing source tried, at least this often

    def backoff(self, failures: int) -> float:
        """Seconds to leave alone what failed so many times in a row: `ask_every` at first, then ever longer."""
        return min(self.ask_every * 2.0 ** min(failures - 1, 16), self.max_backoff)

    @property
    def absent_after(self) -> float:
        """Silence after which a peer is not counted as present: three asks and one deadline."""
        return 3 * self.ask_every + self.ask_deadline
