"""The clock and the network of the simulation: order, delay, shared lines, loss, deadlines, partitions."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from braintorrent.errors import Unreachable
from braintorrent.protocol.policy import Policy
from braintorrent.simulation import Clock, Line, Network, World
from braintorrent.simulation.flows import Flows, Way
from braintorrent.simulation.scenario import Links, Scenario


def test_calls_are_made_in_order_of_time_and_then_of_asking() -> None:
    clock, made = Clock(), []
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "late")):
        clock.at(when, made.append, (name, when))
    clock.run(5.0)
    assert made == [("a", 1.0), ("b", 1.0), ("c", 2.0)]
    assert (clock.now, clock.events) == (5.0, 3)
    clock.at(1.0, made.append, "past")  # now is the earliest
    clock.run(5.0)
    assert made[-1] == "past"


# ----------------------------------------------------------------- exchanges


def pair(links: Links | None = None, of_b: Links | None = None, **options: Any) -> tuple[Network, Line, Line]:
    """A network of a and b; a second each way and ten bytes a second unless `links` say otherwise."""
    links = links or Links((1.0, 1.0), 10.0, 10.0)
    a, b = Line("a", links), Line("b", of_b or links, **options)
    return Network(Clock(), Random(1), {"a": a, "b": b}), a, b


def exchange(
    made: tuple[Network, Line, Line], answer: Any, size: float = 0.0, deadline: float = 5.0, question: float = 0.0,
    trips: int = 1,
) -> list[Any]:  # fmt: skip
    """(second, answer) that a gets of b."""
    network, a, b = made
    done: list[Any] = []
    began = network.clock.now
    served = None if answer is None else (answer, size)
    network.exchange(
        a, b, question, lambda: served, lambda got: done.append((network.clock.now - began, got)), deadline, trips
    )
    network.clock.run(network.clock.now + 100.0)
    return done


def test_an_exchange_takes_both_ways_and_its_bytes() -> None:
    assert exchange(pair(), "yes") == [(2.0, "yes")]
    made = pair()
    assert exchange(made, "yes", size=20.0) == [(4.0, "yes")]
    assert (made[1].sent, made[2].sent) == (0.0, 20.0)
    assert exchange(pair(), "yes", deadline=20.0, trips=3) == [(6.0, "yes")]


def test_a_way_is_as_slow_as_its_worse_end() -> None:
    assert exchange(pair(of_b=Links((2.0, 2.0), 10.0, 10.0)), "yes") == [(4.0, "yes")]
    assert exchange(pair(of_b=Links((0.0, 0.0), 5.0, None)), "yes", size=15.0) == [(2.0 + 3.0, "yes")]


def test_an_answer_that_flows_takes_longer_than_the_deadline() -> None:
    ((when, answer),) = exchange(pair(Links((0.0, 0.0), 1e5, 1e5)), "yes", size=1e6)
    assert when == pytest.approx(11.0)  # a tenth more are headers and the like
    assert answer == "yes"


def test_a_question_that_flows_is_given_up_at_the_deadline() -> None:
    line = Links((0.0, 0.0), 1e5, 1e5)
    made = pair(line)
    assert exchange(made, "yes", question=4e5)[0][1] == "yes"
    ((when, what),) = exchange(made, "yes", question=1e6)
    assert (when, type(what)) == (5.0, Unreachable)
    assert made[1].sent == pytest.approx(4e5 + 5e5 / 1.1)
    assert not made[1].up.flows


@pytest.mark.parametrize("case", ["nobody there", "too slow", "lost", "parted", "behind a router", "closed to a"])
def test_whoever_gets_no_answer_learns_so_at_the_deadline(case: str) -> None:
    made = pair(
        Links((1.0, 1.0), 10.0, 10.0, loss=1.0 * (case == "lost")), nat=case == "behind a router",
        closed_to=frozenset(["a"] if case == "closed to a" else []),
    )  # fmt: skip
    if case == "parted":
        made[0].part(["a"], ["b"])
    answer = None if case == "nobody there" else "yes"
    ((when, what),) = exchange(made, answer, size=100.0 if case == "too slow" else 0.0)
    assert when == 5.0
    assert isinstance(what, Unreachable)


def test_who_cannot_be_dialled_can_dial() -> None:
    network, a, b = pair(nat=True)
    assert exchange((network, b, a), "yes") == [(2.0, "yes")]


@pytest.mark.parametrize("when", [0.5, 1.5])
def test_a_cut_between_question_and_answer_loses_the_answer(when: float) -> None:
    made = pair()
    made[0].clock.at(when, made[0].part, ["a"])
    ((_, what),) = exchange(made, "yes")
    assert isinstance(what, Unreachable)
    made[0].heal()
    assert exchange(made, "yes")[0][1] == "yes"


def test_who_is_killed_in_the_middle_of_a_transfer_is_not_waited_for() -> None:
    made = pair(Links((0.0, 0.0), 1e5, 1e5))
    made[0].clock.at(3.0, made[0].hang_up, made[2])
    ((when, what),) = exchange(made, "yes", size=1e6)
    assert when == 3.0
    assert isinstance(what, Unreachable)
    assert made[2].sent == pytest.approx(3e5 / 1.1)


def halted(fate: str, until: float, killed: float = 1e9) -> tuple[float, Any, float]:
    """When a model of eleven seconds came, from second 1 to `until` cut off; what came; bytes sent by then."""
    made = network, a, b = pair(Links((0.0, 0.0), 1e5, 1e5))
    clock = network.clock
    if fate == "parted":
        clock.at(1.0, network.part, ["a"])
        clock.at(until, network.heal)
    else:
        one = a if fate == "its reader paused" else b
        clock.at(1.0, network.silence, one, True)
        clock.at(until, network.silence, one, False)
    clock.at(killed, network.hang_up, b)
    ((when, what),) = exchange(made, "yes", size=1e6)
    return when, what, b.sent


FATES = ["parted", "paused", "its reader paused"]


@pytest.mark.parametrize("fate", FATES)
def test_what_flows_halts_at_a_cut_or_a_pause_and_goes_on_if_that_ends_soon(fate: str) -> None:
    assert halted(fate, 21.0) == (pytest.approx(11.0 + 20.0), "yes", 1e6)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("until", [32.0, 1e6])
def test_after_thirty_seconds_without_a_byte_a_transfer_has_failed(fate: str, until: float) -> None:
    when, what, sent = halted(fate, until)
    assert when == pytest.approx(31.0)
    assert isinstance(what, Unreachable)
    assert sent == pytest.approx(1e5 / 1.1)


@pytest.mark.parametrize(("fate", "told"), [("parted", 21.0), ("paused", 11.0)])
def test_who_is_killed_behind_a_cut_is_missed_when_it_heals(fate: str, told: float) -> None:
    when, what, _ = halted(fate, 21.0, killed=11.0)
    assert when == pytest.approx(told)
    assert isinstance(what, Unreachable)


def test_what_halts_leaves_its_line_to_others() -> None:
    made = network, a, b = pair(Links((0.0, 0.0), 1e5, 1e5))
    network.lines["c"] = c = Line("c", a.links)
    network.exchange(c, b, 0.0, lambda: ("a model", 1e6), lambda got: None, 5.0)
    network.clock.at(1.0, network.part, ["c"])
    assert exchange(made, "yes", size=1e6) == [(pytest.approx(1.0 + 10.5), "yes")]


def test_a_few_bytes_wait_behind_what_takes_all_of_a_line() -> None:
    line = Links((0.0, 0.0), 1e5, 1e5, queue=0.5)
    made = pair(line)
    network, a, b = made
    assert exchange(made, "yes") == [(0.0, "yes")]
    network.exchange(a, b, 0.0, lambda: ("a model", 9.9e6), lambda got: None, 5.0)
    network.clock.run(network.clock.now + 1.0)
    assert exchange(made, "yes") == [(0.5, "yes")]  # the answer; the question went the other way
    network.clock.run(network.clock.now + 100.0)
    assert exchange(made, "yes") == [(0.0, "yes")]


def test_loss_is_as_given_and_each_exchange_ends_exactly_once() -> None:
    (network, a, b), done = pair(Links(loss=0.3)), []
    for _ in range(2000):
        network.exchange(a, b, 0.0, lambda: ("yes", 0.0), done.append, 5.0)
    network.clock.run(10.0)
    assert len(done) == 2000
    assert 0.44 < done.count("yes") / 2000 < 0.54  # 0.7 squared


@pytest.mark.parametrize(("fate", "said"), [("crash", "nobody listens"), ("pause", "no answer")])
def test_a_process_that_is_gone_is_told_from_one_that_is_silent(fate: str, said: str) -> None:
    world = World(Scenario("two", "", 2, 100.0, Policy(ask_every=5.0, ask_deadline=4.0), within=1.0), 1).run(20.0)
    getattr(world.peers["lab00000"], fate)()
    world.run(20.0 + 1.1 * 5.0 + 4.0)
    machine = world.peers["lab00001"].machine
    assert machine is not None
    assert said in machine.contacts.of["lab00000"].problem


# ----------------------------------------------------------------- shared lines

Job = tuple[float, int, int, float]  # second, from whom, to whom, bytes


def play(jobs: list[Job], rates: list[float]) -> list[float]:
    """Seconds that each takes, over lines of these rates both ways; no line ever carries more."""
    clock = Clock()
    flows, ups, downs = Flows(clock), [Way(rate) for rate in rates], [Way(rate) for rate in rates]
    took = [0.0] * len(jobs)

    def begin(job: int) -> None:
        at, up, down, size = jobs[job]
        flows.begin(ups[up], downs[down], size, lambda: took.__setitem__(job, clock.now - at), lambda left: None)
        for way in (*ups, *downs):
            assert sum(flow.rate for flow in way.flows) <= way.rate * 1.000001

    for number, job in enumerate(jobs):
        clock.at(job[0], begin, number)
    clock.run(1e6)
    assert not any(way.flows or way.used for way in (*ups, *downs))
    return took


def test_transfers_share_a_line_and_each_is_faster_when_another_ends() -> None:
    assert play([(0.0, 0, 1, 10.0), (0.0, 0, 2, 10.0)], [1.0] * 3) == [20.0, 20.0]
    assert play([(0.0, 0, 1, 10.0), (5.0, 0, 2, 10.0)], [1.0] * 3) == [15.0, 15.0]
    assert play([(0.0, 1, 0, 10.0), (0.0, 2, 0, 4.0)], [1.0] * 3) == [14.0, 8.0]
    assert play([(0.0, 0, 1, 10.0), (0.0, 1, 0, 10.0)], [1.0] * 2) == [10.0, 10.0]  # up and down are two ways


def test_what_a_transfer_cannot_use_of_a_line_is_the_others() -> None:
    thin = [4.0, 1.0, 4.0]
    assert play([(0.0, 0, 1, 10.0), (0.0, 0, 2, 30.0)], thin) == [10.0, 10.0]
    assert play([(0.0, 0, 2, 30.0), (0.0, 0, 1, 10.0)], thin) == [10.0, 10.0]


def exactly(jobs: list[Job], rates: list[float]) -> list[float]:
    """The same by the book: at each event the max-min fair rates of all, by progressive filling."""
    now, left, took, coming = 0.0, dict[int, float](), [0.0] * len(jobs), list(range(len(jobs)))
    while left or coming:
        pace = _filled({job: (("up", jobs[job][1]), ("down", jobs[job][2])) for job in left}, rates)
        first = min(left, key=lambda job: left[job] / pace[job], default=None)
        ends = now + left[first] / pace[first] if first is not None else float("inf")
        at = min(ends, jobs[coming[0]][0] if coming else float("inf"))
        left = {job: size - pace[job] * (at - now) for job, size in left.items()}
        now = at
        if at == ends and first is not None:
            took[first] = now - jobs[first][0]
            del left[first]
        else:
            left[coming[0]] = jobs[coming[0]][3]
            del coming[0]
    return took


def _filled(ways: dict[int, tuple[Any, Any]], rates: list[float]) -> dict[int, float]:
    pace, taken = dict[int, float](), Counter[Any]()
    while waiting := ways.keys() - pace.keys():
        crowd = Counter(way for job in waiting for way in ways[job])
        level, narrow = min(((rates[way[1]] - taken[way]) / count, way) for way, count in crowd.items())
        for job in waiting:
            if narrow in ways[job]:
                pace[job] = level
                taken.update(dict.fromkeys(ways[job], level))  # type: ignore[arg-type]
    return pace


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_looking_at_two_lines_at_a_time_is_as_good_as_looking_at_all(load: float) -> None:
    rng, count = Random(f"load {load}"), 300
    rates = [rng.choice([1.0, 1.0, 2.0, 4.0]) for _ in range(10)]
    jobs = sorted(
        (rng.uniform(0.0, count / 10 / load), *rng.sample(range(10), 2), rng.uniform(0.5, 1.5)) for _ in range(count)
    )
    ours, best = play(jobs, rates), exactly(jobs, rates)
    assert sum(ours) == pytest.approx(sum(best), rel=0.03)
    assert sorted(ours)[count * 9 // 10] == pytest.approx(sorted(best)[count * 9 // 10], rel=0.05)
    slower = sorted(mine / theirs for mine, theirs in zip(ours, best, strict=True))
    assert slower[-1] < 1.5
    assert slower[count * 99 // 100] < 1.25


def sent(transfers: list[tuple[Way, Way, float]], seconds: float = 1000.0) -> dict[float, float]:
    """Bytes of each transfer that is through by then -> the second at which it was; all begin at once, in order."""
    clock, took = Clock(), dict[float, float]()
    flows = Flows(clock)
    for up, down, size in transfers:
        flows.begin(up, down, size, lambda size=size: took.__setitem__(size, clock.now), lambda left: None)  # type: ignore[misc]
    clock.run(seconds)
    return took


@pytest.mark.parametrize("squeezed", ["later", "before"])
def test_what_others_are_squeezed_out_of_elsewhere_is_used(squeezed: str) -> None:
    up, ten = Way(10.0), [Way(10.0) for _ in range(10)]
    crowd = [(Way(10.0), down, 1e5) for down in ten[1:] for _ in range(39)]
    ours = [(up, down, 1000.0 if down is ten[0] else 1e5) for down in ten]
    took = sent(ours + crowd if squeezed == "later" else crowd + ours)
    assert took == {1000.0: pytest.approx(1000.0 / (10.0 - 9 * 10.0 / 40))}


def test_who_is_squeezed_no_more_gets_an_equal_share_again() -> None:
    up, free, full = Way(10.0), Way(10.0), Way(10.0)
    took = sent([(up, free, 900.0), (up, full, 110.0), *((Way(10.0), full, 10.0 + n / 1e6) for n in range(9))])
    assert took[110.0] == pytest.approx(10.0 + 100.0 / 5.0, rel=1e-4)  # 1 of 10 beside nine others, then half
    assert took[900.0] == pytest.approx(30.0 + (900.0 - 10 * 9.0 - 20 * 5.0) / 10.0, rel=1e-4)
