"""Play a scenario in virtual time."""

from __future__ import annotations

from collections.abc import Callable

from braintorrent.simulation.run import Run
from braintorrent.simulation.scenario import Scenario

SAMPLES = 120  # points on a curve


def run(
    scenario: Scenario, seed: int, *, trace: bool = False, progress: Callable[[float], None] | None = None
) -> Run:  # fmt: skip
    """Play `scenario`; the same seed gives the same trace. trace: keep it; progress: told the share done."""
    from braintorrent.simulation.world import World

    world = World(scenario, seed, keep_trace=trace)
    for sample in range(1, SAMPLES + 1):
        world.run(scenario.seconds * sample / SAMPLES)
        world.watch.sample(world)
        if progress is not None:
            progress(sample / SAMPLES)
    return world.watch.run(world)
