"""Scenarios with real processes: what befalls a lab, and what is told of it afterwards."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import psutil
import pytest

from braintorrent.errors import ConfigError
from braintorrent.experiments.real import run_real
from braintorrent.experiments.real_figures import at_work
from braintorrent.experiments.real_kills import WITHIN, measure, table
from braintorrent.experiments.real_ledgers import Story, held_up, longest_wait, lost
from braintorrent.experiments.real_predicted import compared, scenarios, virtual
from braintorrent.experiments.real_setting import impossible
from braintorrent.experiments.real_spreading import spreads
from braintorrent.experiments.real_stage import Stage
from braintorrent.node.control import holder
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.version import Version
from braintorrent.simulation.scenario import Attacker, Happening, Links, Peer, Scenario
from braintorrent.storage import Merged, Part

V1, V2 = Version(1, 1), Version(1, 2)
SOON = {"ask_every": 0.2, "ask_deadline": 2.0, "alone_after": 2.0}


def story(me: str, arrived: list[tuple[str, Version]], held: list[tuple[str, Version]]) -> Story:
    return Story(me, (0.0,), dict.fromkeys(arrived, 1.0), frozenset(held), (), {}, frozenset("ab"))


@pytest.mark.parametrize(
    ("stories", "wiped", "missing"),
    [
        ([story("a", [("a", V1)], [("a", V1)])], [], []),
        ([story("a", [("a", V1), ("a", V2)], [("a", V1)])], [], [("a", V2)]),
        ([story("a", [("a", V1), ("a", V2)], [("a", V2)])], [], []),
        ([story("b", [("a", V2)], [("a", V2)])], [story("a", [("a", V2)], [])], []),
        ([story("b", [], [])], [story("a", [("a", V2)], [])], []),
        ([story("b", [], [])], [story("b", [("a", V2)], [])], [("a", V2)]),
        ([story("a", [("a", V2)], [("a", V2)])], [story("b", [("a", V1)], [])], []),
        ([story("b", [("c", V2)], [])], [], []),
    ],
    ids=[
        "here",
        "gone",
        "superseded",
        "held by another",
        "nobody's but the author's",
        "holder's disk",
        "newer since",
        "trusted no more",
    ],
)
def test_a_version_is_lost_when_the_newest_one_that_was_safe_lies_nowhere(stories, wiped, missing):
    assert lost(dict(enumerate(stories)), wiped) == missing


@pytest.fixture
def staged(federate) -> Callable[[int], Stage]:
    def make(labs: int) -> Stage:
        federation = federate(*(f"lab-{number}" for number in range(labs)), timing=SOON)
        federation.start()
        return Stage(list(federation.folders.values()), federation.processes)

    return make


def until(stage: Stage, condition: Callable[[dict[int, Story]], bool], seconds: float = 30.0) -> dict[int, Story]:
    """The stories, once it is so; fails with what the labs said."""
    deadline = time.monotonic() + seconds
    while not condition(stories := stage.stories()):
        if time.monotonic() > deadline:
            pytest.fail("\n".join(stage.processes.last_words(folder, 20) for folder in stage.folders))
        stage.look()
        time.sleep(0.1)
    return stories


def merges_of(story: Story, author: str) -> int:
    return sum(author in merged.included for _, merged in story.merges)


def test_who_lost_all_returns_as_a_new_lab_that_all_trust_anew(staged):
    stage = staged(2)
    first = until(stage, lambda told: all(merges_of(told[i], told[1 - i].me) for i in told))
    stage.lose_all(1)
    assert stage.present == [0]
    stage.start(1)
    told = until(stage, lambda told: told[1].me and merges_of(told[0], told[1].me) and merges_of(told[1], told[0].me))
    assert told[1].me != first[1].me
    assert lost(told, [story for _, story in stage.wiped]) == []


def test_a_lab_is_held_up_from_when_it_could_go_on_until_it_does():
    took = Merged(24.0, included={"b": Part(V1)})
    told = Story(
        "a", (10.0, 20.0), {("a", V1): 16.0, ("a", V2): 30.0}, frozenset(), ((V2, took),), {}, frozenset(),
        trained={V1: 5.0, V2: 3.0},
    )  # fmt: skip
    assert held_up(told, 0.0, [18.0]) == 4.0, "from the second life to the merge; what followed was work"
    assert held_up(replace(told, merges=()), 0.0, [18.0]) == 7.0, "who merges nothing has only trained"
    assert held_up(told, 10.5, [18.0]) == 4.0
    assert held_up(told, 25.0, [18.0]) == 0.0
    assert longest_wait(told, ends=[18.0, 90.0]) == 60.0, "from its last word to its end"
    assert longest_wait(replace(told, finished=30.0), ends=[18.0, 90.0]) == 10.0


@pytest.mark.parametrize(
    ("lives", "published", "merges", "ends", "seconds"),
    [
        ((0.0,), {V1: 5.0}, (), [300.0], 292.0),
        ((0.0, 100.0), {V1: 5.0, V2: 103.0}, (), [95.0], 87.0),
        ((0.0, 100.0), {V1: 5.0, V2: 300.0}, ((V2, Merged(90.0, included={})),), [95.0], 197.0),
        ((0.0, 10.0), {V1: 5.0, V2: 13.0}, (), [7.0], 0.0),
    ],
    ids=["to the end", "until it was killed", "in a life that goes on from an earlier merge", "it trained when killed"],
)
def test_a_lab_that_hangs_is_held_up_whatever_ends_it(lives, published, merges, ends, seconds):
    arrived = {("a", version): unix for version, unix in published.items()}
    told = Story("a", lives, arrived, frozenset(), merges, {}, frozenset(), trained=dict.fromkeys(published, 3.0))
    assert held_up(told, 0.0, ends) == seconds


def test_a_kill_counts_if_it_meets_a_lab_at_work():
    begun = [(0, 10.0, 50.0, 5.0), (1, 10.0, 90.0, 5.0)]  # lab, from, to, seconds to begin
    stories = [(0, story("a", [], [])), (1, replace(story("b", [], []), finished=60.0))]
    for lab, unix, counts in ((0, 12.0, 0), (0, 50.0, 1), (0, 51.0, 0), (1, 50.0, 1), (1, 70.0, 0), (2, 20.0, 0)):
        assert at_work([(lab, unix)], begun, stories) == counts, (lab, unix)


def test_kills_cost_labs_nothing_that_versions_do_not_make_good(tmp_path):
    happenings = (Happening(4.0, "kill", (0,), until=4.0), Happening(5.0, "lose_all", (1,), until=5.0))
    pace = Policy(ask_every=0.5, ask_deadline=2.0, alone_after=1.5)
    told = Scenario("two", "", 2, 0.0, pace, 0.4, happenings=happenings, within=0.1, model_bytes=8000)
    both = measure(told, tmp_path, [0], 12, None)[0]
    quiet, kills = both["quiet"], both["kills"]
    assert quiet["versions"] == [12, 12], "each ends by itself"
    assert min(kills["versions"]) >= 12
    assert [run["figures"]["kills"] for run in both.values()] == [0, 2]
    assert [what for _, what in kills["happened"]][-3:-1] == ["kill 1", "lose_all 1"]
    assert [run["figures"]["versions_lost"] for run in both.values()] == [0, 0]
    assert kills["figures"]["held_up"] < 0.5 + 1.5, "ask_every, and what a busy machine takes"
    assert quiet["figures"]["longest_wait"] < 5.0, "the last ones' waiting for each other is of no account"
    assert kills["figures"]["distance_to_optimum"] is not None, "of who has finished"
    assert 50 < kills["figures"]["peak_rss_mib"] < 200, "of one process, not of the one that started it"
    means = [fmean(run["scores"].values()) for run in both.values()]  # where between both a model ends is chance
    assert means[0] == pytest.approx(means[1], abs=WITHIN)
    assert table([both], pace.ask_every).row_count == 2
    assert measure(told, tmp_path, [0], 12, None) == [both], "what is there is not played again"
    with pytest.raises(ConfigError, match=r"quiet-12-versions-seed-0\.json: of scenario \w+, not \w+; move it away"):
        measure(replace(told, version_seconds=9.0), tmp_path, [0], 12, None)
    (tmp_path / "quiet-12-versions-seed-0.json").unlink()
    again = measure(told, tmp_path, [0], 12, None)[0]["quiet"]
    assert again["happened"] != quiet["happened"], "what was interrupted is played anew"
    assert again["scenario"] == quiet["scenario"]


def test_who_is_started_while_it_leaves_starts_once_it_has_left(staged):
    stage = staged(2)
    until(stage, lambda told: all(story.own for story in told.values()))
    leaving = stage.processes.running[stage.folders[1]]
    stage.leave(1)
    stage.start(1)
    until(stage, lambda told: len(told[1].lives) == 2)
    assert leaving.returncode == 0, "it left in good order"
    assert stage.present == [0, 1]
    assert stage.returning == set()


def test_a_paused_lab_goes_on_where_it_was(staged):
    stage = staged(2)
    until(stage, lambda told: all(len(s.own) >= 2 for s in told.values()))
    stage.pause(0)
    before = stage.stories()
    until(stage, lambda told: len(told[1].own) >= len(before[1].own) + 5)
    assert stage.stories()[0].own == before[0].own
    stage.resume_all()
    told = until(stage, lambda told: len(told[0].own) >= len(before[0].own) + 2)
    assert len(told[0].lives) == 1


def test_influence_goes_where_a_version_went_and_where_a_merge_of_it_did():
    took = Merged(11.0, included={"a": Part(V1), "b": Part(V1)})
    arrived = {"a": {("a", V1): 10.0}, "b": {("b", V1): 9.0, ("a", V1): 10.5, ("b", V2): 12.0}, "c": {("b", V2): 13.0}}
    merges = {"b": ((V2, took),)}
    told = [Story(me, (), at, frozenset(), merges.get(me, ()), {}, frozenset()) for me, at in arrived.items()]
    stories = list(enumerate(told))
    found = {(s.author, s.at): s for s in spreads(stories, [(0, 0, 99), (1, 0, 99), (2, 0, 99), (3, 0, 8)], began=5.0)}
    first = found[0, 5.0]
    assert first.held == (0.5, None, None), "a and b hold it; d was gone before"
    assert first.influence == (0.5, 3.0, 3.0), "c has what b made of it"
    assert found[1, 4.0].held == (4.0, None, None), "a newer one of its author counts, but a has none"


QUICK = Policy(ask_every=0.5, ask_deadline=2.0, alone_after=2.0)


def test_labs_are_killed_lose_disks_leave_and_nothing_is_lost(tmp_path):
    scenario = Scenario(
        "comings", "", peers=3, seconds=24.0, policy=QUICK, version_seconds=1.0, within=0.5, model_bytes=40_000,
        happenings=(
            Happening(6.0, "kill", (0,), until=6.5), Happening(7.0, "lose_disk", (1,), until=7.0),
            Happening(16.0, "leave", (2,)),
        ),
    )  # fmt: skip
    shares = []
    run = run_real(scenario, tmp_path / "labs", seed=0, progress=shares.append)
    assert run.figures["versions_lost"] == 0
    assert run.figures["versions_published"] == sum(run.versions) >= 9
    assert min(run.versions) >= 2
    assert any(spread.influence[2] is not None for spread in run.spreads)
    per_version = run.figures["bytes_per_peer_per_version"]
    assert 40_000 < per_version < 4 * 40_000, "each goes to two others, if they are there"
    assert run.available[2] < run.available[0] < 1
    assert all(run.merged[i][j] for i in range(3) for j in range(3) if i != j)
    assert [what for _, what in run.happened if what.startswith(("kill", "lose", "leave"))] == [
        "kill 0", "kill 1", "lose_disk 1", "leave 2",
    ]  # fmt: skip
    assert len(run.series.times) == len(run.series.mean) == len(run.series.bytes) == len(run.series.staleness) > 30
    assert run.series.present[-1] == 2
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_machines_with_a_cut_a_thin_line_and_one_that_only_dials_out(lan, tmp_path):
    scenario = Scenario(
        "lines", "", peers=4, seconds=18.0, policy=QUICK, version_seconds=1.0, within=0.5, model_bytes=40_000,
        special={1: Peer(links=Links(uplink=200_000, downlink=200_000)), 2: Peer(nat=True)},
        happenings=(Happening(8.0, "partition", (3,), until=13.0),),
    )  # fmt: skip
    run = run_real(scenario, tmp_path / "labs", seed=0)
    assert run.figures["versions_lost"] == 0
    assert min(run.versions) >= 4, "no lab waits for another"
    assert run.merged[2][0] > 2 < run.merged[0][2], "who only dials out takes part"
    assert run.merged[3][0] > 0
    assert run.merged[3][0] < run.merged[1][0], "it was cut off for a while"


def test_ctrl_c_ends_every_process_the_paused_one_too(tmp_path):
    code = (
        "from pathlib import Path; from braintorrent.experiments.real import run_real;"
        "from braintorrent.simulation.scenario import Happening, Scenario;"
        "run_real(Scenario('ended', '', 2, 60.0, within=0.1, happenings=(Happening(3.0, 'pause', (1,)),)),"
        f"Path({str(tmp_path / 'labs')!r}), 0)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    folders = [tmp_path / "labs" / name for name in ("lab-a", "lab-b")]
    deadline = time.monotonic() + 30
    while None in (held := [holder(folder) for folder in folders]) or not _paused(held[1]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    words = run.communicate(timeout=45)[1]
    assert b"KeyboardInterrupt" in words
    assert [holder(folder) for folder in folders] == [None, None]


def _paused(process: int | None) -> bool:
    return psutil.Process(process).status() == psutil.STATUS_STOPPED


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"links": Links(loss=0.1)}, "loses no messages"),
        ({"attackers": (Attacker(0),)}, "no attackers"),
        ({"special": {0: Peer(closed_to=(1,))}}, "one-way"),
        ({"happenings": (Happening(1.0, "slow", (0,)),)}, "slow"),
    ],
)
def test_what_cannot_be_real_is_refused_in_words(tmp_path, differs, says):
    with pytest.raises(ConfigError, match=says):
        run_real(Scenario("unreal", "", 2, 10.0, **differs), tmp_path / "labs", seed=0)
    assert not (tmp_path / "labs").exists()


def test_what_is_compared_can_be_real_and_is_settled_in_virtual_time():
    steady, kills = scenarios()
    assert [*impossible(steady), *impossible(kills)] == []
    quiet, troubled, slower = (
        compared(virtual(*given)) for given in ((steady, 0, 2.0), (kills, 0, 0.0), (kills, 0, 6.0))
    )
    assert quiet["versions"] > troubled["versions"] > slower["versions"] > 0
    assert all(value < math.inf for told in (quiet, troubled, slower) for value in told.values())


def test_publishes_that_came_to_few_are_compared_too():
    run = virtual(scenarios()[0], 0, 2.0)
    assert len(run.spreads) == sum(run.versions)
    few = [replace(spread, held=(None, None, None)) for spread in run.spreads]
    assert compared(replace(run, spreads=few))["seconds until all"] == math.inf


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_kill_every_three_seconds_loses_nothing_and_holds_nobody_up(tmp_path):
    kills = tuple(Happening(12.0 + 3 * i, "lose_disk" if i == 4 else "kill", 1 / 6, 12.0 + 3 * i) for i in range(30))
    scenario = Scenario(
        "kills", "", 6, 110.0, Policy(ask_every=1.0, ask_deadline=3.0, alone_after=5.0), 2.0, happenings=kills,
        model_bytes=80_000, within=1.0,
    )  # fmt: skip
    run = run_real(scenario, tmp_path / "labs", seed=0)
    assert run.figures["versions_lost"] == 0
    assert min(run.versions) >= 10
    assert run.figures["longest_wait"] < 2.0 + 1.0 + 1.5, "a version, ask_every, and what a busy machine takes"
