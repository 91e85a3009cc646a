"""Play a scenario in virtual time."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from braintorrent.simulation.learner import Learning
from braintorrent.simulation.run import Run
from braintorrent.simulation.scenario import Scenario
from braintorrent.simulation.world import World

SAMPLES = 120  # points on a curve
TOLD = 200  # acts that are told one by one


def run(
    scenario: Scenario, seed: int, *, trace: bool = False, progress: Callable[[float], None] | None = None,
    learning: Learning | None = None,
) -> Run:  # fmt: skip
    """Play `scenario`; the same seed gives the same trace.

    trace: keep it; progress: told the share done; learning: None for the scenario's stand-in.
    """
    began = time.monotonic()
    world = World(scenario, seed, keep_trace=trace, learning=learning)
    with _no_collection():
        for sample in range(1, SAMPLES + 1):
            world.run(scenario.seconds * sample / SAMPLES)
            world.watch.sample()
            if progress is not None:
                progress(sample / SAMPLES)
        told = _told(world, time.monotonic() - began)
        world.close()
    return told


def _told(world: World, wall_seconds: float) -> Run:
    scenario, seed, watch = world.scenario, world.seed, world.watch
    acts = [act for act in world.acts if act.what != "start" or act.at > scenario.within]
    return Run(
        scenario, seed, figures(world, wall_seconds), watch.series, watch.spreads(), watch.matrix,
        watch.per_row, watch.versions, [peer.line.sent for peer in world.peers.values()],
        [seconds / scenario.seconds for seconds in watch.here()],
        [(act.at, f"{act.what} {_whom(act.who)}") for act in acts[:TOLD]], world.trace.entries,
    )  # fmt: skip


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hardly anything here refers to itself in a circle, and looking for it among millions of objects takes a third."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def figures(world: World, wall_seconds: float) -> dict[str, Any]:
    """The figures of a run so far: see Run."""
    watch, scenario = world.watch, world.scenario
    published, here = sum(watch.versions), sum(watch.here())
    interval = here / published if published else None
    to_99 = [probe.times[2] for probe in watch.probes]
    middle = median(float("inf") if seconds is None else seconds for seconds in to_99) if to_99 else float("inf")
    sent = sum(line.sent for line in world.network.lines.values())
    anybody = any(watch.series.present[-1:])
    mean, worst = (watch.series.mean[-1], watch.series.worst[-1]) if anybody else (None, None)
    return {
        "scenario": scenario.name,
        "seed": world.seed,
        "peers": scenario.peers,
        "virtual_seconds": world.clock.now,
        "wall_seconds": round(wall_seconds, 3),
        "events": world.clock.events,
        "peak_rss_mib": round(peak_rss_mib() or 0.0, 1),
        "versions_published": published,
        "versions_lost": watch.versions_lost(),
        "intervals_to_99": None if interval is None or middle == float("inf") else middle / interval,
        "bytes_per_peer_per_version": sent / published if published else None,
        "distance_to_optimum": None if world.learning.score else mean,
        "trace_digest": world.trace.digest,
        **({"mean_score": mean, "worst_score": worst} if world.learning.score else {}),
    }


def peak_rss_mib(process: int | None = None) -> float | None:
    """Of this process alone, or of another one while it runs, where the system tells.

    On Linux, getrusage's peak begins with that of the process which started this one.
    """
    with suppress(OSError, ValueError):  # not Linux, or it has just ended
        words = Path(f"/proc/{process or 'self'}/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if process is None else None


def _whom(who: tuple[int, ...]) -> str:
    few = ", ".join(map(str, who[:4]))
    return few if len(who) <= 4 else f"{few} and {len(who) - 4} more"
