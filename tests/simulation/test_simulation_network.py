"""The clock and the network of the simulation: order, delay, loss, deadlines, partitions."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from braintorrent.errors import Unreachable
from braintorrent.simulation import Clock, Line, Network
from braintorrent.simulation.scenario import Links


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


def pair(links: Links | None = None, **of_b: Any) -> tuple[Network, Line, Line]:
    """A network of a and b; a second each way and ten bytes a second unless `links` say otherwise."""
    links = links or Links((1.0, 1.0), 10.0, 10.0)
    a, b = Line("a", links), Line("b", links, **of_b)
    return Network(Clock(), Random(1), {"a": a, "b": b}), a, b


def exchange(made: tuple[Network, Line, Line], answer: Any, size: float = 0.0, deadline: float = 5.0) -> list[Any]:
    """(second, answer) that a gets of b."""
    network, a, b = made
    done: list[Any] = []
    began = network.clock.now
    served = None if answer is None else (answer, size)
    network.exchange(a, b, 0.0, lambda: served, lambda got: done.append((network.clock.now - began, got)), deadline)
    network.clock.run(network.clock.now + 100.0)
    return done


def test_an_exchange_takes_both_ways_and_its_bytes() -> None:
    assert exchange(pair(), "yes") == [(2.0, "yes")]
    made = pair()
    assert exchange(made, "yes", size=20.0) == [(4.0, "yes")]
    assert (made[1].sent, made[2].sent) == (0.0, 20.0)


def test_a_way_is_as_slow_as_its_worse_end() -> None:
    network, a, b = pair()
    b.links = Links((2.0, 2.0), 10.0, 10.0)
    assert exchange((network, a, b), "yes") == [(4.0, "yes")]
    b.links = Links((0.0, 0.0), 5.0, None)
    assert network.travel(b, a, 20.0) == 1.0 + 4.0


def test_large_transfers_share_an_uplink() -> None:
    network, a, b = pair(Links((0.0, 0.0), 1e6, 1e6))
    c = Line("c", a.links)
    assert [network.travel(b, to, 2e6) for to in (a, c)] == [2.0, 4.0]
    assert network.travel(a, b, 2e6) == 2.0  # downlinks are lines of their own
    assert network.travel(b, a, 1e3) == 0.001  # what is small slips in between
    network.clock.run(10.0)
    assert network.travel(b, a, 2e6) == 2.0


def test_an_answer_that_flows_takes_longer_than_the_deadline() -> None:
    assert exchange(pair(Links((0.0, 0.0), 1e5, 1e5)), "yes", size=1e6) == [(10.0, "yes")]


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


def test_loss_is_as_given_and_each_exchange_ends_exactly_once() -> None:
    (network, a, b), done = pair(Links(loss=0.3)), []
    for _ in range(2000):
        network.exchange(a, b, 0.0, lambda: ("yes", 0.0), done.append, 5.0)
    network.clock.run(10.0)
    assert len(done) == 2000
    assert 0.44 < done.count("yes") / 2000 < 0.54  # 0.7 squared
