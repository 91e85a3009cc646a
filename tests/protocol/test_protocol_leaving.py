"""Who is stopped hands its newest version over: when it waits for whom, and when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from braintorrent.protocol import effects as want
from braintorrent.protocol.messages import Announcement, TellMessage
from braintorrent.protocol.steps import Step

Said = Callable[..., Announcement]
Make = Callable[..., Any]


def training(s: Any) -> None:
    for peer in [a.peer for a in s.asks]:
        s.reply(peer, phase="seeking")


@pytest.fixture
def stopped(shell: Make) -> Callable[..., Any]:
    """One that published, which all have heard and nobody is known to hold, and is stopped."""

    def make(others: str = "ab", **policy: Any) -> Any:
        s = shell(others, quorum=9, patience=1e6, **policy)
        training(s)
        s.train()
        newest = s.publish()
        for peer in others:
            s.reply(peer)
        s.feed("stop")
        assert (s.step, s.left()) == (Step.LEAVING, None)
        assert s.others == [want.HandOver(newest)]
        return s

    return make


def test_who_is_stopped_asks_all_at_once_and_goes_when_one_holds_its_newest(stopped: Callable[..., Any]) -> None:
    s = stopped()
    assert {(a.peer, a.message.phase, a.message.newest) for a in s.asks} == {
        (peer, "leaving", s.machine.newest) for peer in "ab"
    }
    s.reply("b")
    assert s.asked_by("b").announcements == (s.machine.newest,), "it is served meanwhile"
    assert s.left() is None
    s.asked_by("b", me=s.machine.newest.version)
    assert s.left() == "stopped"
    assert [a.peer for a in s.asks] == ["a"], "it said farewell as it asked"
    assert s.machine.next_deadline() is None


def test_who_is_stopped_believes_an_answer_that_lacks_nothing(stopped: Callable[..., Any]) -> None:
    s = stopped("a")
    s.reply("a")
    s.wait(6.0)
    s.reply("a", settled=True)
    assert s.others[-1] == want.Leave("stopped")


def test_nobody_is_waited_for_who_is_leaving_too_or_does_not_answer(stopped: Callable[..., Any]) -> None:
    s = stopped("abc")
    s.reply("a", phase="leaving")
    for _ in range(2):
        assert set("bc") <= {ask.peer for ask in s.asks}
        s.silence("b")
        assert s.left() is None
        s.silence("c")
        s.wait(6.0)
    assert s.left() == "stopped"


def test_one_ask_that_is_lost_ends_no_wait(stopped: Callable[..., Any]) -> None:
    s = stopped("a")
    s.silence("a")
    assert s.left() is None
    s.asked_by("a")  # it is alive, and may be downloading
    s.reply("a")
    s.wait(6.0)
    s.silence("a")
    assert s.left() is None, "not two in a row"


def test_who_only_calls_is_waited_for_while_it_calls(shell: Make) -> None:
    s = shell("a", quorum=9, patience=1e6)
    s.asked_by("a")
    s.silence("a")  # heard, and not to be dialled
    s.wait(40.0, meanwhile=lambda: [s.silence("a") for _ in list(s.asks)])
    s.train()
    s.publish()
    s.asked_by("a")
    s.feed("stop")
    began = s.now
    s.wait(20.0, meanwhile=lambda: [s.silence("a") for _ in list(s.asks)])
    assert s.machine.contacts.of["a"].failures > 2
    assert s.left() is None
    s.wait(10.0)
    assert s.left() == "stopped", "silent for longer than who is present"
    assert s.now - began < s.machine.policy.hand_over


def stop_training(s: Any) -> None:
    s.feed("stop")
    s.feed("trained", False, None)


def test_what_others_held_of_an_earlier_version_is_no_reason_to_go(shell: Make) -> None:
    s = shell("ab")
    training(s)
    s.train()
    s.asked_by("a", me=s.publish().version)
    s.train()
    s.publish()
    stop_training(s)
    assert (s.step, s.left()) == (Step.LEAVING, None)


def test_an_answer_speaks_of_the_version_that_its_ask_carried(shell: Make) -> None:
    s = shell("a")
    training(s)
    s.train()
    first = s.publish()
    assert [ask.message.newest for ask in s.asks] == [first]
    s.train()
    s.publish()
    s.reply("a", settled=True)
    stop_training(s)
    assert s.step is Step.LEAVING
    assert [(ask.message.newest.version.counter, ask.message.phase) for ask in s.asks] == [(2, "working")]
    s.reply("a", settled=True)
    assert s.left() is None, "perhaps it refused it: it was not asked whether one may go"
    s.reply("a", settled=True)
    assert s.left() == "stopped"


def test_who_is_trusted_anew_is_not_known_to_hold_anything(shell: Make) -> None:
    s = shell("ab", quorum=9, patience=1e6)
    training(s)
    s.train()
    s.asked_by("a", me=s.publish().version)
    for roster in ({"me", "b"}, {"me", "a", "b"}):
        s.feed("roster_changed", frozenset(roster))
    s.feed("sighted", "a", "a:1")
    s.reply("a")
    s.feed("stop")
    assert s.left() is None


def test_who_is_stopped_waits_no_longer_than_it_says_and_looks_for_nothing(
    stopped: Callable[..., Any], said: Said
) -> None:
    s = stopped("a", hand_over=20.0)
    s.reply("a", said("a"))
    began = s.now
    s.wait(19.0, meanwhile=lambda: [s.reply(ask.peer, said("a")) for ask in list(s.asks)])
    assert s.left() is None
    s.wait(3.0)
    assert s.left() == "stopped"
    assert s.now - began < 25.0
    assert want.Leave("stopped", alone=True) in s.others
    assert s.fetches == s.work == []


def test_one_that_lost_its_disk_holds_nothing_any_more(shell: Make) -> None:
    s = shell("a", quorum=9, patience=1e6)
    training(s)
    s.train()
    s.asked_by("a", me=s.publish().version)
    s.asked_by("a")
    s.feed("stop")
    assert s.left() is None


def test_of_who_cannot_be_dialled_the_push_is_waited_for(stopped: Callable[..., Any]) -> None:
    s = stopped("a")
    ask = s.asks.pop()
    wanted = TellMessage(wants=(s.machine.newest.record, s.machine.newest.content))
    s.feed("asked", ask.peer, wanted)
    assert s.others[1:] == [want.Push("a", wanted.wants)]
    s.feed("pushed", "a")
    s.reply("a", settled=True)
    assert s.left() == "stopped"


def test_whoever_is_leaving_hears_at_once_that_its_version_is_held(shell: Make, said: Said) -> None:
    s = shell("ab")
    for peer in "ab":
        s.reply(peer)
    s.asked_by("a", said("a"), phase="leaving")
    s.fetch_all()
    assert [(a.peer, a.message.holds["a"]) for a in s.asks] == [("a", said("a").version)]


def test_who_asks_whether_it_may_go_is_answered_of_its_own_version_alone(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("a"))
    s.fetch_all()
    assert not s.asked_by("a", said("a"), b=said("b").version).settled
    assert s.asked_by("a", said("a"), phase="leaving", b=said("b").version).settled
    assert not s.asked_by("a", said("a", counter=2), phase="leaving").settled


def test_who_refused_a_version_does_not_let_its_author_go_for_it(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("a"))
    fetch = s.fetches.pop()
    s.feed("fetch_failed", fetch.announcement, fetch.source, refuse="schema")
    assert s.asked_by("a", said("a")).settled
    assert not s.asked_by("a", said("a"), phase="leaving").settled
    assert s.asked_by("b", phase="leaving").settled, "it has none"


def test_who_waits_for_a_peer_is_told_when_that_peer_leaves_too(shell: Make) -> None:
    s = shell("a", quorum=9, patience=1e6)
    training(s)
    s.train()
    s.publish()
    s.reply("a")
    s.asked_by("a", phase="leaving")
    s.feed("stop")
    assert s.left() == "stopped", "nobody stays"
    assert [(ask.peer, ask.message.phase) for ask in s.asks] == [("a", "leaving")]


def test_who_is_long_gone_is_told_nothing(shell: Make) -> None:
    s = shell("a", quorum=9, patience=1e6)
    training(s)
    s.train()
    s.publish()
    s.wait(40.0, meanwhile=lambda: [s.silence("a") for _ in list(s.asks)])
    s.feed("stop")
    assert s.left() == "stopped"
    assert all(ask.message.phase == "working" for ask in s.asks)
