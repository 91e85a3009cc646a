"""What a scenario says: who is there, over which lines, who comes and goes when, and what is learned.

Plain values: the simulator plays them in virtual time, experiments/real with processes. Times are seconds from
the beginning; peers go by their index, 0 to peers - 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal, get_args

from braintorrent.errors import ConfigError
from braintorrent.protocol.messages import PROTOCOLS, Protocols
from braintorrent.protocol.policy import Policy

FOREVER = float("inf")


@dataclass(frozen=True)
class Links:
    """One peer's line. A way between two is as bad as the worse of both ends."""

    latency: tuple[float, float] = (0.02, 0.04)  # seconds one way, uniform between
    uplink: float | None = 100e6 / 8  # bytes per second, shared by all it sends; None: no limit
    downlink: float | None = 100e6 / 8
    loss: float = 0.0  # share of messages that never arrive
    queue: float = 0.0  # seconds that a message waits behind transfers which take all of an end of the line


@dataclass(frozen=True)
class Peer:
    """How one peer differs from the others; None: it does not."""

    links: Links | None = None
    speed: float | None = None  # versions per `version_seconds`: 0.1 is a straggler
    nat: bool = False  # it dials out, and nobody can dial it
    closed_to: tuple[int, ...] = ()  # these cannot dial it: one-way links
    samples: int | None = None  # training cases


@dataclass(frozen=True)
class Exponential:
    """Memoryless: as likely to end now as at any other moment."""

    mean: float

    def draw(self, rng: Random) -> float:
        """Seconds."""
        return rng.expovariate(1 / self.mean)


@dataclass(frozen=True)
class Uniform:
    """Anything between two bounds; the same twice is a constant."""

    low: float
    high: float

    def draw(self, rng: Random) -> float:
        """Seconds."""
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogNormal:
    """Many short ones and a few very long: sessions as peer-to-peer networks measure them."""

    median: float
    sigma: float = 1.0  # of the logarithm

    def draw(self, rng: Random) -> float:
        """Seconds."""
        return self.median * rng.lognormvariate(0.0, self.sigma)


Distribution = Exponential | Uniform | LogNormal


@dataclass(frozen=True)
class Sessions:
    """A recorded trace: for each peer when it was there, as (from, to). Too few lines are used again and again."""

    of: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True)
class Churn:
    """How peers come and go until `until`: who is away then still returns, nobody goes any more."""

    session: Distribution | Sessions = Exponential(300.0)
    absence: Distribution = Exponential(60.0)  # of no account with recorded sessions
    crash: float = 0.7  # share of goings that are a kill -9; the others leave in good order
    lost_disk: float = 0.1  # share of returns with nothing but the key
    old_copy: float = 0.1  # share of returns on a restored backup
    until: float = FOREVER


What = Literal["join", "leave", "kill", "lose_disk", "lose_all", "partition", "pause", "slow"]


@dataclass(frozen=True)
class Happening:
    """One thing that befalls some peers, and ends at `until`: they return, the network heals, go on, are fast again.

    join: they are not there before. leave: in good order. lose_disk: killed, and back with nothing but the key.
    lose_all: killed, and back as a new lab that all trust anew; with real processes only.
    partition: they on one side, all others on the other.
    """

    at: float
    what: What
    who: tuple[int, ...] | float = 1.0  # these, or a share of all drawn at random, at least one
    until: float = FOREVER
    over: float = 0.0  # one after the other, spread over so many seconds
    factor: float = 10.0  # slow: so many times
    protocols: Protocols | None = None  # they return with a release that speaks these; None: the same as before

    def __post_init__(self) -> None:
        """ConfigError for what could never happen: it would be a run without it, which looks like any other."""
        if self.what not in get_args(What):
            raise ConfigError(f"no happening is called {self.what!r}; there are: {', '.join(get_args(What))}")
        begun = self.at + self.over
        if self.until < begun:  # at once it may
            raise ConfigError(f"{self.what} until {begun:g} s cannot end before, at {self.until:g} s")
        numbers = isinstance(self.who, tuple) and all(isinstance(one, int) and one >= 0 for one in self.who)
        if not numbers and not (isinstance(self.who, float) and 0 < self.who <= 1):
            raise ConfigError(f"{self.what}: who is a share, up to 1.0, or labs by their numbers, as in (0, 3)")


@dataclass(frozen=True)
class Attacker:
    """poison: its models lie `scale` from the truth. equivocate: two contents for one version, one for each half."""

    who: int
    how: Literal["poison", "equivocate"] = "poison"
    scale: float = 100.0


@dataclass(frozen=True)
class Quadratic:
    """A stand-in learner: lab i trains towards its own optimum c_i, the minimum of |x - c_i|^2 / 2.

    The federated optimum is known: the mean of c_i weighted with samples.
    """

    dimension: int = 2
    spread: float = 1.0  # standard deviation of the labs' optima, per dimension
    noise: float = 0.0  # standard deviation added by each version, per dimension
    rate: float = 0.5  # share of the way to its own optimum that one version goes
    samples: tuple[int, int] = (5, 50)


@dataclass(frozen=True)
class Scenario:
    """A story of labs that come and go. The same scenario and seed give the same trace, byte for byte."""

    name: str
    teaches: str  # one sentence
    peers: int
    seconds: float
    policy: Policy = field(default_factory=Policy)
    version_seconds: float = 20.0  # to train one version, at speed 1
    speed: tuple[float, float] = (1.0, 1.0)  # of each peer, uniform between
    jitter: float = 0.05  # of one version's time
    merge_seconds: float = 0.5
    store_seconds: float = 0.1  # until a version is durable, and as long again until its author goes on
    links: Links = field(default_factory=Links)
    special: Mapping[int, Peer] = field(default_factory=dict)
    churn: Churn | None = None
    happenings: tuple[Happening, ...] = ()
    attackers: tuple[Attacker, ...] = ()
    method: str = "braintorrent"  # or median
    learner: Quadratic = field(default_factory=Quadratic)
    model_bytes: int = 1_000_000
    known: int | None = None  # addresses a starting peer finds; None: all who run see each other, as on one LAN
    protocols: Protocols = PROTOCOLS  # lowest and highest that each speaks in the beginning
    within: float = 10.0  # seconds in which those there from the beginning start

    def __post_init__(self) -> None:
        """ConfigError where all whom something befalls are beyond the last lab; some may be, with a smaller --peers."""
        for told in (*self.happenings, *self.attackers):
            who = told.who if isinstance(told.who, tuple) else (told.who,)
            if who and all(isinstance(one, int) and one >= self.peers for one in who):
                what = getattr(told, "what", "an attacker")
                raise ConfigError(f"{what}: there is no lab {who[0]}; the {self.peers} labs are 0 to {self.peers - 1}")
