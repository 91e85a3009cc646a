"""The clock and the network of the simulation: order, delay, loss, deadlines, partitions."""

from __future__ import annotations

from random import Random

import pytest

from braintorrent.errors import Gone, Unreachable
from braintorrent.simulation import Clock, Link, Network


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


def exchange(network: Network, answer: object, **named: float) -> list[tuple[float, object]]:
    done: list[tuple[float, object]] = []
    options = {"deadline": 5.0, **named}
    network.exchange("a", "b", lambda: answer, lambda got: done.append((network.clock.now, got)), **options)
    network.clock.run(100.0)
    return done


def network(link: Link | None = None) -> Network:
    return Network(Clock(), Random(1), link or Link(latency=1.0, jitter=0.0, bytes_per_second=10.0))


def test_an_exchange_takes_both_ways_and_its_bytes() -> None:
    assert exchange(network(), "yes") == [(2.0, "yes")]
    assert exchange(network(), "yes", size=20.0) == [(4.0, "yes")]
    slow = network()
    slow.links["b", "a"] = Link(latency=2.0, jitter=0.0, bytes_per_second=10.0)
    assert exchange(slow, "yes") == [(3.0, "yes")]


def test_a_refusal_weighs_nothing() -> None:
    ((when, what),) = exchange(network(), Gone("superseded"), size=1e9)
    assert when == 2.0
    assert isinstance(what, Gone)


@pytest.mark.parametrize("case", ["nobody there", "too slow", "lost", "parted"])
def test_whoever_gets_no_answer_learns_so_at_the_deadline(case: str) -> None:
    net = network(Link(latency=1.0, jitter=0.0, loss=1.0) if case == "lost" else None)
    if case == "parted":
        net.part(["a"], ["b"])
    answer = None if case == "nobody there" else "yes"
    ((when, what),) = exchange(net, answer, size=1e9 if case == "too slow" else 0.0)
    assert when == 5.0
    assert isinstance(what, Unreachable)


def test_a_cut_between_question_and_answer_loses_the_answer() -> None:
    net = network()
    net.clock.at(0.5, net.part, ["a"])
    ((_, what),) = exchange(net, "yes")
    assert isinstance(what, Unreachable)
    net.heal()
    assert net.reaches("a", "b")


def test_loss_is_as_given_and_each_exchange_ends_exactly_once() -> None:
    net, done = network(Link(loss=0.3)), []
    for _ in range(2000):
        net.exchange("a", "b", lambda: "yes", done.append, deadline=5.0)
    net.clock.run(10.0)
    assert len(done) == 2000
    assert 0.44 < done.count("yes") / 2000 < 0.54  # 0.7 squared
