"""The protocol among many peers in virtual time: under loss, churn, partitions, and to the end of training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from math import dist
from pathlib import Path
from random import Random
from typing import Any

import pytest

from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.simulation import World
from braintorrent.simulation.learner import StandIn
from braintorrent.simulation.scenario import Churn, Exponential, Links, Quadratic, Scenario

ONCE = 1e6  # seconds between versions: each life publishes one, so that "newest" holds still to be looked at


def story(peers: int, policy: Policy, **options: Any) -> Scenario:
    """Labs that differ in cases, speed and what they would learn alone, as far as `options` say nothing else."""
    return Scenario("test", "", peers, 4000.0, policy, **{"speed": (2 / 3, 2.0), "jitter": 0.0, **options})


def going(session: float, absence: float, **shares: float) -> Churn:
    """Churn of these mean times."""
    return Churn(Exponential(session), Exponential(absence), **shares)


def trains(seconds: float) -> dict[str, Any]:
    """Labs that differ only in what they would learn alone."""
    learner = Quadratic(dimension=1, samples=(10, 10))
    return {"version_seconds": seconds, "speed": (1.0, 1.0), "learner": learner}


def some_run(seed: int, until: float = 60.0) -> World:
    """100 peers under loss and fast churn."""
    policy = Policy(fanout=3, ask_every=10.0, max_merge=100, stop=StopRule(versions=5))
    return World(story(100, policy, links=Links(loss=0.1), churn=going(60.0, 20.0)), seed).run(until)


# ----------------------------------------------------------------- the same seed, the same trace


def test_a_seed_decides_everything() -> None:
    one, again, other = some_run(1), some_run(1), some_run(2)
    assert one.trace.entries == again.trace.entries
    assert one.trace.digest == again.trace.digest != other.trace.digest
    kinds = Counter(entry[2] for entry in one.trace.entries)
    assert {"start", "crash", "fetch", "merge", "publish", "leave"} <= kinds.keys()


def test_neither_the_process_nor_its_hash_seed_decides_anything() -> None:
    def digest(hash_seed: str) -> str:
        script = (
            "import sys; sys.path.insert(0, sys.argv[1]); from test_simulation_world import some_run\n"
            "print(some_run(1).trace.digest)"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.strip()

    assert digest("1") == digest("77") == some_run(1).trace.digest


# ----------------------------------------------------------------- gossip


@pytest.mark.parametrize(("fanout", "ask_every"), [(None, 60.0), (3, 10.0)])
def test_all_present_come_to_hold_the_newest_of_all_despite_loss_and_churn(
    fanout: int | None, ask_every: float
) -> None:
    policy = Policy(
        fanout=fanout, ask_every=ask_every, max_merge=100, max_fetches=8, mean_interval=ONCE, max_backoff=60.0
    )
    churn = going(60.0, 15.0, lost_disk=0.2, old_copy=0.2, until=90.0)
    world = World(story(100, policy, links=Links(loss=0.25), churn=churn), 3).run(200.0)
    kinds = Counter(entry[2] for entry in world.trace.entries)
    assert min(kinds["crash"], kinds["leave"], kinds["lost disk"], kinds["old copy"]) >= 3
    assert len(world.present()) == 100
    while world.missing() and world.clock.now < 1500.0:
        world.run(world.clock.now + 20.0)
    assert world.missing() == []
    assert world.conflicts == []
    assert world.equivocations == []


def test_a_few_known_addresses_are_enough_to_find_everyone() -> None:
    policy = Policy(fanout=3, ask_every=10.0, max_merge=100, mean_interval=ONCE)
    world = World(story(60, policy, known=2), 4).run(600.0)
    assert world.missing() == []
    assert all(len(p.machine.contacts.of) == 59 for p in world.present() if p.machine)


def test_with_a_fanout_asks_stay_within_it_under_loss_and_churn() -> None:
    policy = Policy(fanout=3, ask_every=10.0, mean_interval=ONCE)
    world = World(story(60, policy, links=Links(loss=0.25), churn=going(100.0, 30.0)), 5).run(400.0)
    assert world.asks / 60 / (400.0 / 10.0) < 2 * 3


def test_a_partition_heals() -> None:
    policy = Policy(ask_every=5.0, max_backoff=20.0, stop=StopRule(versions=8))
    world = World(story(16, policy, **trains(15.0)), 6).run(30.0)
    names = list(world.peers)
    before = len(world.contents)
    world.network.part(names[:8], names[8:])
    world.run(100.0)
    assert len(world.contents) >= before + 16 * 3  # both sides went on
    across = {(h, a) for h, a in world.missing() if (h in names[:8]) != (a in names[:8])}
    assert len(across) == 2 * 8 * 8
    world.network.heal()
    world.run(140.0)
    assert world.missing() == []
    world.run(400.0)
    assert len({peer.ended for peer in world.peers.values()}) == 1


# ----------------------------------------------------------------- the end


@pytest.mark.parametrize("fanout", [None, 3])
def test_all_who_end_together_end_with_the_same_models(fanout: int | None) -> None:
    policy = Policy(fanout=fanout, ask_every=20.0, stop=StopRule(versions=4), linger=3000.0, max_merge=8, max_fetches=8)
    churn = going(150.0, 30.0, until=140.0)
    world = World(story(30, policy, links=Links(loss=0.05), churn=churn), 7).run(120.0)
    gone = [peer.name for peer in world.present()][:3]
    for name in gone:
        world.lose(name)
    world.run(1500.0)
    ended = {peer.name: peer.ended for peer in world.peers.values() if peer.name not in gone}
    assert world.present() == []
    assert {peer.reason for name, peer in world.peers.items() if name not in gone} == {"finished"}
    assert len(set(ended.values())) == 1
    versions = dict(next(iter(ended.values())))
    assert ended.keys() <= versions.keys()
    assert all(world.peers[name].disk.newest.final for name in ended)  # type: ignore[union-attr]
    last = {entry[1]: entry[4] for entry in world.trace.entries if entry[2] == "publish"}
    assert all(last[name] is True for name in ended)


def test_all_end_near_the_federated_optimum_and_nearer_than_alone() -> None:
    world = World(story(12, Policy(ask_every=5.0, stop=StopRule(versions=10)), **trains(20.0)), 8).run(1000.0)
    models = [peer.model for peer in world.peers.values()]
    assert max(dist(model, models[0]) for model in models) < 1e-9
    assert isinstance(world.learning, StandIn)
    optimum = world.learning.optimum
    assert dist(models[0], optimum) < 0.05 * max(dist(peer.lab.optimum, optimum) for peer in world.peers.values())


# ----------------------------------------------------------------- nobody waits for the dead


@pytest.mark.parametrize("fanout", [None, 3])
def test_a_dead_peer_costs_the_others_no_time(fanout: int | None) -> None:
    def versions(dies: bool) -> list[int]:
        world = World(story(10, Policy(fanout=fanout, ask_every=5.0), within=1.0, **trains(7.0)), 9).run(50.0)
        if dies:
            world.peers["lab00000"].crash()
        world.run(600.0)
        return [p.machine.counter for p in world.peers.values() if p.machine and p.name != "lab00000"]

    with_all, with_one_dead = versions(dies=False), versions(dies=True)
    assert len(with_one_dead) == 9
    assert min(with_all) > 70
    assert all(abs(a - b) <= 1 for a, b in zip(with_all, with_one_dead, strict=True))


# ----------------------------------------------------------------- one version, one content


@pytest.mark.parametrize("seed", [10, 11])
def test_no_version_ever_has_two_contents_whatever_becomes_of_the_disks(seed: int) -> None:
    policy = Policy(ask_every=5.0, alone_after=10.0)
    churn = going(40.0, 5.0, crash=0.8, lost_disk=0.3, old_copy=0.5)
    world = World(story(8, policy, links=Links(loss=0.2), churn=churn, **trains(5.0)), seed).run(2000.0)
    kinds = Counter(entry[2] for entry in world.trace.entries)
    assert min(kinds["lost disk"], kinds["old copy"]) > 50
    assert world.conflicts == []
    assert world.equivocations == []
    for name in world.peers:
        numbers = [entry[3] for entry in world.trace.entries if entry[1] == name and entry[2] == "publish"]
        assert numbers == sorted(set(numbers))


class StoppedClock(World):
    """Every machine thinks that it is 1970."""

    def unix_ms(self) -> int:
        return 0


def relive(world: World) -> None:
    """A peer loses its disk again and again, and publishes in between."""
    for _ in range(5):
        peer = world.peers["lab00000"]
        peer.crash()
        peer.lose_disk()
        world.start(peer.name)
        world.run(world.clock.now + 60.0)


def test_without_a_clock_and_without_others_it_would_go_wrong_and_the_simulation_sees_it() -> None:
    world = StoppedClock(story(1, Policy(alone_after=1.0), **trains(5.0)), 12).run(60.0)
    relive(world)
    assert world.conflicts


def test_without_a_clock_the_others_remember() -> None:
    world = StoppedClock(story(4, Policy(ask_every=5.0), **trains(5.0)), 12).run(60.0)
    relive(world)
    assert world.conflicts == []
    assert world.equivocations == []


def test_a_lab_that_is_paused_sends_nothing() -> None:
    thin = Links(uplink=100_000.0)  # ten seconds for a model
    world = World(story(4, Policy(ask_every=5.0), within=1.0, links=thin, **trains(20.0)), 16).run(60.0)
    paused = next(peer for peer in world.peers.values() if peer.line.up.flows)
    before, flowing = paused.line.sent, sum(flow.left for flow in paused.line.up.flows)
    paused.pause()
    world.run(150.0)
    assert paused.line.sent < before + 0.9 * flowing
    halted = paused.line.sent
    paused.resume()
    world.run(300.0)
    assert paused.line.sent > halted + 5e6


# ----------------------------------------------------------------- a full disk


def test_a_full_disk_stops_one_lab_until_there_is_room_and_nobody_else() -> None:
    world = World(story(4, Policy(ask_every=5.0), within=1.0, **trains(10.0)), 13).run(60.0)
    full = world.peers["lab00000"]
    assert full.machine is not None
    before = {p.name: p.machine.counter for p in world.present() if p.machine}
    full.disk.full = True
    world.run(200.0)
    assert full.machine.counter <= before[full.name] + 1
    assert all(p.machine.counter > before[p.name] + 8 for p in world.present() if p.machine and p is not full)
    full.disk.full = False
    world.run(260.0)
    assert full.machine.counter >= before[full.name] + 4
    fetched = {e[3] for e in world.trace.entries if e[0] > 205.0 and e[1] == full.name and e[2] == "fetch" and not e[6]}
    assert fetched == world.peers.keys() - {full.name}


def test_random_numbers_come_from_the_seed_only() -> None:
    import random

    random.seed(1)
    state = random.getstate()
    some_run(14, until=20.0)
    assert random.getstate() == state
    assert Random("14/world").random() != Random("15/world").random()
