"""Scenarios played to the end: their figures, one seed one trace, and what befalls the labs."""

from __future__ import annotations

from dataclasses import replace
from math import log10

import pytest

from braintorrent.errors import ConfigError
from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.simulation.running import run
from braintorrent.simulation.scenario import (
    Attacker,
    Churn,
    Exponential,
    Happening,
    Links,
    Peer,
    Quadratic,
    Scenario,
    Sessions,
    Uniform,
)  # fmt: skip
from braintorrent.simulation.timeline import timeline

KEYS = {
    "scenario", "seed", "peers", "virtual_seconds", "wall_seconds", "events", "peak_rss_mib", "versions_published",
    "versions_lost", "intervals_to_99", "bytes_per_peer_per_version", "distance_to_optimum", "trace_digest",
}  # fmt: skip
SMALL = Scenario("small", "", 6, 600.0, Policy(ask_every=5.0, alone_after=10.0), model_bytes=100_000)


def large(peers: int, seconds: float = 9000.0) -> Scenario:
    """Few asks, little room, labs that come and go: as in a federation of thousands."""
    policy = Policy(ask_every=300.0, fanout=3, max_merge=3, alone_after=60.0)
    churn = Churn(Exponential(12_000.0), Exponential(600.0))
    start = {"version_seconds": 300.0, "known": 8, "within": 300.0}
    return Scenario("large", "", peers, seconds, policy, churn=churn, **start)


def test_the_figures_are_those_of_the_report_and_a_seed_decides_all_but_the_clock() -> None:
    one, again, other = run(SMALL, 1), run(SMALL, 1), run(SMALL, 2)
    assert one.figures.keys() == KEYS
    machine = {"wall_seconds", "peak_rss_mib"}
    assert all(one.figures[key] == again.figures[key] for key in KEYS - machine)
    assert one.figures["trace_digest"] != other.figures["trace_digest"]
    assert one.series == again.series
    assert one.figures["versions_lost"] == 0
    assert one.figures["versions_published"] == sum(one.versions) == one.series.published[-1]
    assert one.figures["intervals_to_99"] < 4 * log10(6) + 2
    assert all(all(spread.held) for spread in one.spreads if spread.at < 500.0)
    assert all(0.95 < share <= 1.0 for share in one.available)


@pytest.mark.parametrize("peers", [10, 100])
def test_what_one_publishes_comes_to_99_of_100_within_a_few_versions(peers: int) -> None:
    assert run(large(peers), 1).figures["intervals_to_99"] <= 4 * log10(peers) + 2


# ----------------------------------------------------------------- what befalls peers


def test_a_timeline_is_in_order_and_drawn_from_the_seed() -> None:
    churn = Churn(Uniform(50.0, 100.0), Exponential(20.0), lost_disk=0.5)
    scenario = replace(SMALL, churn=churn, happenings=(Happening(100.0, "kill", 0.5, until=130.0),))
    acts = timeline(scenario, 1)
    assert acts == timeline(scenario, 1) != timeline(scenario, 2)
    assert [act.at for act in acts] == sorted(act.at for act in acts)
    assert {"start", "kill", "leave", "lose_disk"} <= {act.what for act in acts}
    assert [(a.at, len(a.who)) for a in acts if a.what == "kill" and len(a.who) > 1] == [(100.0, 3)]


def test_recorded_sessions_say_who_is_there() -> None:
    sessions = Sessions((((0.0, 300.0),), ((100.0, 200.0), (400.0, 500.0))))
    found = run(replace(SMALL, churn=Churn(sessions, crash=1.0, lost_disk=0.0, old_copy=0.0)), 1)
    assert found.available == pytest.approx([1 / 2, 1 / 3] * 3, abs=0.01)


def test_who_joins_was_not_there_before_and_a_flash_crowd_is_spread_over_its_time() -> None:
    late = (Happening(100.0, "join", (2, 3, 4, 5), over=40.0),)
    acts = [act for act in timeline(replace(SMALL, happenings=late), 1) if act.what == "start" and act.at > 10.0]
    assert [(act.at, act.who) for act in acts] == [(100.0, (2,)), (110.0, (3,)), (120.0, (4,)), (130.0, (5,))]


def test_a_lost_disk_is_made_good_and_the_version_of_who_is_gone_lives_on() -> None:
    fate = (Happening(100.0, "lose_disk", (0,), until=130.0), Happening(200.0, "leave", (1,)))
    found = run(replace(SMALL, happenings=fate), 1, trace=True)
    assert found.figures["versions_lost"] == 0
    assert found.available[1] < 0.4
    numbers = [entry[3] for entry in found.trace if entry[1] == "lab00000" and entry[2] == "publish"]
    assert numbers == sorted(set(numbers))
    assert numbers[-1].incarnation > numbers[0].incarnation


def test_a_version_that_nobody_has_any_more_is_counted_as_lost() -> None:
    fate = (Happening(300.0, "leave", (0, 1)), Happening(400.0, "lose_disk", (0, 1), until=1e9))
    assert run(replace(SMALL, peers=2, happenings=fate), 1).figures["versions_lost"] == 2


@pytest.mark.parametrize(("until", "lost"), [(float("inf"), 3), (150.0, 0), (1e9, 0)])
def test_what_only_labs_hold_that_never_return_is_lost(until: float, lost: int) -> None:
    fate = tuple(Happening(100.0 + lab / 10, "kill", (lab,), until=until) for lab in range(3))
    assert run(replace(SMALL, peers=3, happenings=fate), 1).figures["versions_lost"] == lost
    assert run(replace(SMALL, peers=3, happenings=fate[:2]), 1).figures["versions_lost"] == 0


def test_labs_that_come_and_go_or_have_finished_lose_nothing() -> None:
    churn = replace(SMALL, churn=Churn(Exponential(30.0), Exponential(300.0), lost_disk=0.0, old_copy=0.0))
    assert [run(churn, seed).figures["versions_lost"] for seed in range(3)] == [0, 0, 0]
    finished = run(replace(SMALL, policy=replace(SMALL.policy, stop=StopRule(versions=3))), 1)
    assert finished.series.present[-1] == 0
    assert finished.figures["versions_lost"] == 0


def test_a_straggler_and_a_pause_slow_nobody_else() -> None:
    plain = run(SMALL, 1)
    fate = (Happening(100.0, "pause", (1,), until=400.0),)
    found = run(replace(SMALL, special={0: Peer(speed=0.1)}, happenings=fate), 1)
    assert found.versions[0] < 0.15 * plain.versions[0]
    assert found.versions[1] < 0.6 * plain.versions[1]
    assert all(mine >= 0.95 * theirs for mine, theirs in zip(found.versions[2:], plain.versions[2:], strict=True))


def test_a_thin_line_slows_nobody_else() -> None:
    thin = {0: Peer(links=Links(uplink=10_000.0, downlink=10_000.0))}
    plain, found = run(SMALL, 1), run(replace(SMALL, special=thin), 1)
    assert all(mine >= 0.95 * theirs for mine, theirs in zip(found.versions, plain.versions, strict=True))


def test_a_poisoner_ruins_the_mean_and_not_the_median() -> None:
    poisoned = replace(SMALL, attackers=(Attacker(0, scale=1000.0),), learner=Quadratic(samples=(10, 10)))
    mean, middle = run(poisoned, 1), run(replace(poisoned, method="coordinate_median"), 1)
    assert mean.figures["distance_to_optimum"] > 50 > 3 > middle.figures["distance_to_optimum"]
    with pytest.raises(ConfigError, match="krum cannot be simulated"):
        run(replace(SMALL, method="krum"), 1)


def test_who_tells_two_tales_is_quarantined() -> None:
    found = run(replace(SMALL, attackers=(Attacker(0, "equivocate"),)), 1, trace=True)
    judges = {entry[1] for entry in found.trace if entry[2] == "quarantine"}
    assert judges == {f"lab{index:05d}" for index in range(1, 6)}
