"""Scenarios with real processes: what befalls a lab, and what is told of it afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from braintorrent.experiments.real_ledgers import EMPTY, Story, lost
from braintorrent.experiments.real_stage import Stage
from braintorrent.protocol.version import Version

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
        stage.check()
        time.sleep(0.1)
    return stories


def merges_of(story: Story, author: str, since: int = 0) -> int:
    """How many merges took a version of this author, of this incarnation or a later one."""
    taken = [merged.included[author].version for _, merged in story.merges if author in merged.included]
    return sum(version.incarnation >= since for version in taken)


def test_a_lost_disk_returns_under_its_id_and_all_lost_as_a_new_lab(staged):
    stage = staged(3)
    first = until(stage, lambda told: all(merges_of(told[i], told[j].me) for i in told for j in told if i != j))
    stage.lose_disk(1)
    assert stage.present == [0, 2]
    assert stage.stories()[1] == EMPTY
    stage.start(1)
    told = until(stage, lambda told: merges_of(told[0], first[1].me, since=first[1].own[-1][0].incarnation + 1))
    assert told[1].me == first[1].me
    assert told[1].own[0][0].incarnation > first[1].own[-1][0].incarnation

    stage.lose_all(2)
    stage.start(2)
    told = until(stage, lambda told: told[2].me and all(merges_of(told[i], told[2].me) for i in (0, 1)))
    assert told[2].me != first[2].me
    assert lost(told, [story for _, story in stage.wiped]) == []


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
