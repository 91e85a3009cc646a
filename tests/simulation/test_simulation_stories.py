"""What the scripts of scenarios/ say, they show: of a cut that heals, of slow labs, of many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from braintorrent.experiments.scenes import Script
from braintorrent.simulation import World
from braintorrent.simulation.running import run
from braintorrent.simulation.scenario import Scenario

SCRIPTS = Path(__file__).parents[2] / "scenarios"


def story(name: str, peers: int | None = None) -> Scenario:
    """As the script has it."""
    return Script.read(SCRIPTS / f"{name}.py").build(peers)


@pytest.mark.parametrize(("peers", "seed"), [(6, 1), (6, 2), (12, 1), (12, 2), (30, 1)])
def test_after_a_cut_all_hold_the_newest_of_the_other_side_within_three_asks(peers: int, seed: int) -> None:
    scenario = story("partition_and_heal", peers)
    (cut,) = scenario.happenings
    world = World(scenario, seed).run(cut.at)
    assert isinstance(cut.who, tuple)
    before = world.watch.versions.copy()
    world.run(cut.until)
    newest = {peer.name: peer.disk.newest for peer in world.present()}
    assert len(newest) == peers
    assert all(now >= then + 10 for now, then in zip(world.watch.versions, before, strict=True))  # both sides went on
    sides = [{f"lab{index:05d}" for index in range(peers) if (index in cut.who) == side} for side in (True, False)]
    across = {(holder, author) for holder, author in world.missing() if not any({holder, author} <= s for s in sides)}
    assert len(across) == 2 * len(sides[0]) * len(sides[1])
    world.run(cut.until + 3 * scenario.policy.ask_every)
    for holder in world.present():
        for author, announcement in newest.items():
            if author != holder.name:
                held = holder.disk.entries[author].held
                assert held is not None
                assert announcement is not None
                assert held.version >= announcement.version


@pytest.mark.parametrize("name", ["straggler", "thin_link"])
@pytest.mark.parametrize("seed", [1, 2])
def test_one_slow_lab_costs_the_others_no_versions(name: str, seed: int) -> None:
    scenario = story(name)
    assert list(scenario.special) == [0]
    plain, found = run(replace(scenario, special={}), seed), run(scenario, seed)
    assert all(mine >= 0.95 * theirs for mine, theirs in zip(found.versions[1:], plain.versions[1:], strict=True))


def test_a_lab_behind_nat_takes_part_though_those_who_can_be_dialled_fill_all_lines() -> None:
    scenario = replace(story("nat", 24), seconds=60.0, model_bytes=2_000_000)
    world = World(scenario, 1).run(60.0)
    taken = {lab: [e[4].counter for e in world.trace.entries if e[2] == "fetch" and e[3] == lab and not e[-1]]
             for lab in (f"lab{next(iter(scenario.special)):05d}", "lab00000")}  # fmt: skip
    hidden, other = taken.values()
    assert len(hidden) > 0.8 * len(other)
    assert max(hidden) >= max(other) - 1


def test_what_a_version_costs_a_lab_hangs_not_on_how_many_there_are() -> None:
    asks = replace(story("many"), seconds=1200.0, model_bytes=0)  # models cost the same by themselves
    few, more = (run(replace(asks, peers=peers), 1).figures["bytes_per_peer_per_version"] for peers in (512, 1024))
    assert more == pytest.approx(few, rel=0.1)
