"""Who leaves in good order is missed, but its last version is not; who comes back with another release goes on."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from braintorrent.protocol.policy import Policy
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Happening, Links, Scenario
from braintorrent.simulation.world import EPOCH_MS

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def held(world: World, author: str) -> list[str]:
    """Who there holds the newest version of one that has left."""
    newest = world.peers[author].disk.newest
    assert newest is not None
    entries = ((peer.name, peer.disk.entries.get(author)) for peer in world.present())
    return [name for name, entry in entries if entry is not None and entry.held == newest]


def left(world: World, author: str) -> float | None:
    """The second at which it left, if it did."""
    return next((at for at, who, what, *_ in world.trace.entries if (who, what) == (author, "leave")), None)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_line_does_not_keep_the_last_version_of_a_lab_that_leaves(seed: int) -> None:
    thin = Links(uplink=200_000.0)  # five seconds for a model, and a version takes as long
    happening = Happening(30.0, "leave", (2,))
    policy = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)
    story = Scenario("leaves", "", 3, 120.0, policy, version_seconds=5.0, links=thin, happenings=(happening,))
    world = World(story, seed).run(120.0)
    at = left(world, "lab00002")
    assert at is not None
    assert 35.0 < at < 60.0
    assert held(world, "lab00002")


def test_who_leaves_alone_or_with_all_others_waits_for_nobody() -> None:
    policy = Policy(ask_every=2.0, ask_deadline=5.0, alone_after=5.0)
    alone = Scenario("alone", "", 2, 60.0, policy, happenings=(
        Happening(30.0, "kill", (0,)), Happening(31.0, "leave", (1,)),
    ))  # fmt: skip
    together = Scenario("together", "", 6, 60.0, policy, happenings=(Happening(30.0, "leave", tuple(range(6))),))
    for story, labs, soon in ((alone, ["lab00001"], 37.0), (together, [f"lab{n:05d}" for n in range(6)], 32.0)):
        world = World(story, 0).run(60.0)
        for lab in labs:
            at = left(world, lab)
            assert at is not None
            assert at < soon


def merges(world: World, lab: str, since: float, until: float) -> dict[str, Any]:
    """Author -> the newest version that a lab merged in this time."""
    found = (entry[6] for entry in world.trace.entries if entry[1:3] == (lab, "merge") and since <= entry[0] < until)
    return {author: version for versions in found for author, version in versions}


@pytest.mark.parametrize("seed", range(2))
def test_an_upgrade_of_one_lab_after_the_other_costs_nobody_a_version(seed: int) -> None:
    script = runpy.run_path(str(SCENARIOS / "rolling_upgrade.py"))
    story = script["scenario"]()
    world = World(story, seed).run(story.seconds)
    assert {peer.protocols for peer in world.peers.values()} == {script["NEW"]}
    assert world.watch.versions_lost() == 0
    newest = [peer.disk.newest for peer in world.peers.values()]
    assert [n.version.counter for n in newest if n] == world.watch.versions, "nobody counted from one again"
    assert min(world.watch.versions) > 0.9 * max(world.watch.versions)
    # The first is of the newest release, the last of the oldest: 140 to 160 s.
    last, first = f"lab{story.peers - 1:05d}", "lab00000"
    upgraded = int(1e3 * (script["BEGINS"] + script["BETWEEN"] + script["AWAY"]))
    assert first in merges(world, last, 150.0, 160.0)
    assert merges(world, last, 150.0, 160.0)[first].incarnation == EPOCH_MS + upgraded, "of its newest life"
    assert last in merges(world, first, 150.0, 160.0)
