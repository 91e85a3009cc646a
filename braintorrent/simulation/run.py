"""What a run of a scenario showed, virtual or real: the same figures and curves for both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from braintorrent.simulation.scenario import Scenario


@dataclass(frozen=True)
class Spread:
    """How one published version came to others. Seconds since the publish; None: not within the run.

    held: until 50, 90 and 100 % of the peers present at that moment hold it, or a newer one of its author.
    influence: likewise until 50, 90 and 99 % hold it or a model that merged it: until it has reached them.
    reached: in the end, so many others; None: that was not followed.
    """

    author: int
    at: float
    held: tuple[float | None, float | None, float | None] = (None, None, None)
    influence: tuple[float | None, float | None, float | None] = (None, None, None)
    reached: int | None = None


@dataclass
class Series:
    """Curves over `times` (seconds from the beginning), one value per sample; nan where nobody was present."""

    times: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)  # distance to the optimum; or the score, in a real run
    worst: list[float] = field(default_factory=list)  # of the worst present lab
    consensus: list[float] = field(default_factory=list)  # mean distance of the present models to their mean
    staleness: list[float] = field(default_factory=list)  # mean age in seconds of what was merged since the last sample
    present: list[int] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)  # sent by all since the beginning
    published: list[int] = field(default_factory=list)  # versions of all since the beginning


@dataclass
class Run:
    """One run. `figures` are plain values with the keys below; None where this run could not tell.

    scenario, seed, peers, virtual_seconds, wall_seconds, events, peak_rss_mib, versions_published, versions_lost,
    intervals_to_99, bytes_per_peer_per_version, distance_to_optimum, trace_digest
    """

    scenario: Scenario
    seed: int
    figures: dict[str, Any]
    series: Series = field(default_factory=Series)
    spreads: list[Spread] = field(default_factory=list)
    merged: list[list[int]] = field(default_factory=list)  # [merger][author] -> how often; rows of `per_row` peers
    per_row: int = 1
    versions: list[int] = field(default_factory=list)  # published by each peer
    bytes_sent: list[float] = field(default_factory=list)  # by each peer
    available: list[float] = field(default_factory=list)  # share of the time that each peer was there
    happened: list[tuple[float, str]] = field(default_factory=list)  # for people: what befell whom
    trace: list[tuple[Any, ...]] = field(default_factory=list)  # kept only on demand
