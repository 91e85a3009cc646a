"""A method that merges everyone: what was merged before and is held still is offered again, and is nothing newer."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from braintorrent.protocol import effects as want
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.steps import Step
from braintorrent.protocol.table import Table

Make = Callable[..., Any]
Said = Callable[..., Announcement]


def settled(shell: Make, said: Said, **policy: Any) -> Any:
    """A shell that has merged the first versions of a, b and c, and trains."""
    s = shell("abc", everyone=True, **policy)
    for peer in "abc":
        s.reply(peer, said(peer))
    s.fetch_all()
    assert [a.author for a in s.merge().candidates] == ["a", "b", "c"]
    return s


def round_on(s: Any) -> None:
    s.train()
    s.publish()


def test_with_one_newer_model_all_are_merged_and_with_none_it_trains_on(shell: Make, said: Said) -> None:
    s = settled(shell, said)
    round_on(s)
    assert s.step is Step.TRAINING  # what it holds it has merged
    s.asked_by("b", said("b", 1, 2))
    s.fetch_all()
    round_on(s)
    assert s.merge().candidates == (said("a"), said("b", 1, 2), said("c"))
    round_on(s)
    assert s.step is Step.TRAINING


def test_what_was_merged_before_counts_for_no_quorum(shell: Make, said: Said) -> None:
    s = settled(shell, said, quorum=2, patience=60.0)
    round_on(s)
    s.asked_by("a", said("a", 1, 2))
    s.fetch_all()
    assert s.step is Step.READY  # one newer, and two that it knows
    s.asked_by("c", said("c", 1, 2))
    s.fetch_all()
    assert s.merge().candidates == (said("a", 1, 2), said("b"), said("c", 1, 2))


def test_who_was_looked_at_and_left_out_is_nothing_newer_but_a_candidate_again(shell: Make, said: Said) -> None:
    s = shell("abc", everyone=True)
    for peer in "abc":
        s.reply(peer, said(peer))
    s.fetch_all()
    s.work.pop()
    s.feed("merged", ["b"], {}, passed=["a", "c"])
    assert s.machine.table.candidates() == []
    assert not s.machine.table.has_merged(said("a"))
    round_on(s)
    assert s.step is Step.TRAINING
    s.asked_by("a", said("a", 1, 2))
    s.fetch_all()
    round_on(s)
    assert s.merge().candidates == (said("a", 1, 2), said("b"), said("c"))


def test_when_the_roster_changes_who_was_left_out_is_looked_at_again(shell: Make, said: Said) -> None:
    s = shell("ab")
    for peer in "ab":
        s.reply(peer, said(peer))
    s.fetch_all()
    s.work.pop()
    s.feed("merged", ["b"], {}, passed=["a"])
    assert s.machine.table.candidates() == []
    s.feed("roster_changed", s.machine.roster)
    assert s.machine.table.candidates() == [said("a")], "and not what was merged"


def test_a_model_whose_merge_was_undone_waits_for_its_successor(shell: Make, said: Said) -> None:
    s = shell("ab", everyone=True)
    for peer in "ab":
        s.reply(peer, said(peer))
    s.fetch_all()
    s.work.pop()
    s.feed("merged", ["b"], {}, worse=["a"])
    round_on(s)
    s.asked_by("b", said("b", 1, 2))
    s.fetch_all()
    round_on(s)
    assert s.merge().candidates == (said("b", 1, 2),)


def test_newer_models_come_first_where_there_is_no_room_for_all(said: Said) -> None:
    table = Table()
    for author in "abcdef":
        table.hold(said(author))
        table.merge(said(author))
    for author in "be":
        table.hold(said(author, 1, 2))
    for seed in range(20):
        drawn = table.drawn(3, Random(seed), everyone=True)
        assert len(drawn) == 3
        assert {said("b", 1, 2), said("e", 1, 2)} <= set(drawn)
    assert table.drawn(3, Random(0)) == (said("b", 1, 2), said("e", 1, 2))


def test_plain_merges_take_what_is_newer(shell: Make, said: Said) -> None:
    s = shell("ab")
    for peer in "ab":
        s.reply(peer, said(peer))
    s.fetch_all()
    s.merge()
    s.asked_by("b", said("b", 1, 2))
    s.fetch_all()
    round_on(s)
    assert s.work.pop() == want.Merge((said("b", 1, 2),))
