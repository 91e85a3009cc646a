"""A peer that asks and cannot be dialled: how it is told apart, what it is asked to push, and who pushes what when."""

from __future__ import annotations

from typing import Any

import pytest

from braintorrent.protocol import effects as want
from braintorrent.protocol.messages import TellMessage
from braintorrent.protocol.pushes import Pushes
from braintorrent.protocol.steps import Step


def hidden(shell: Any, others: str = "ab", **policy: Any) -> Any:
    """A machine that knows `b` only by its asks: one of its own to it failed meanwhile."""
    s = shell(others, **policy)
    s.asked_by("b")
    s.silence("b")
    return s


def pushed(s: Any) -> list[tuple[str, int]]:
    """(author, counter) of what is waited for."""
    return [(f.announcement.author, f.announcement.version.counter) for f in s.fetches if f.pushed]


def test_what_it_announces_is_wanted_in_the_same_answer_record_first(shell, said):
    s, newest = hidden(shell), said("b")
    reply = s.asked_by("b", newest)
    assert reply.wants == (newest.record, newest.content)
    assert [(f.announcement, f.source, f.pushed) for f in s.fetches] == [(newest, "b", True)]
    assert s.asked_by("b", newest).wants == ()  # it is on its way
    s.fetch_all()
    assert s.machine.table.entries["b"].held == newest
    assert s.asked_by("b", newest).wants == ()


def test_who_answers_or_was_never_tried_is_fetched_from(shell, said):
    s = shell()
    assert s.asked_by("b", said("b")).wants == ()
    assert [(f.source, f.pushed) for f in s.fetches] == [("b", False)]
    s.reply("a")
    assert s.asked_by("a", said("a")).wants == ()
    assert pushed(s) == []


def test_who_answered_before_is_taken_for_hidden_only_after_three_asks_that_failed_while_it_was_heard(shell, said):
    s, wants = shell("b"), []
    s.reply("b")
    for counter in range(1, 5):
        s.wait(20.0)
        newest = said("b", 1, counter)
        wants.append(s.asked_by("b", newest).wants == _of(newest))
        while s.fetches and not s.fetches[0].pushed:
            fetch = s.fetches.pop()
            s.feed("fetch_failed", fetch.announcement, fetch.source)
        if counter < 4:
            s.silence("b")
    assert wants == [False, False, False, True]


def _of(announcement: Any) -> tuple[str, str]:
    return announcement.record, announcement.content


def test_a_crash_is_no_hiding(shell, said):
    s = shell("b")
    s.asked_by("b")
    s.reply("b")
    for _ in range(6):  # nothing is heard between these
        s.wait(60.0, meanwhile=lambda: s.silence("b") if s.asks else None)
    assert not s.machine.contacts.of["b"].calls_only
    s.asked_by("b", said("b"))
    assert s.asks  # its sign of life ends the back-off
    assert [(f.source, f.pushed) for f in s.fetches] == [("b", False)]


def test_an_answer_ends_it(shell, said):
    s = hidden(shell)
    s.wait(60.0)
    s.reply("b", said("b"))
    assert [(f.source, f.pushed) for f in s.fetches] == [("b", False)]


def test_another_source_that_can_be_dialled_is_preferred(shell, said):
    s, newest = hidden(shell), said("b")
    s.reply("a", newest)
    assert [(f.source, f.pushed) for f in s.fetches] == [("a", False)]
    assert s.asked_by("b", newest).wants == ()
    fetch = s.fetches.pop()
    s.feed("fetch_failed", fetch.announcement, fetch.source)
    assert s.asked_by("b", newest).wants == _of(newest)


def test_a_push_that_fails_is_wanted_again_later_and_ever_later(shell, said):
    s, newest, waits = hidden(shell, ask_every=5.0), said("b"), []
    for _ in range(4):
        began = s.now
        while not s.asked_by("b", newest).wants:
            s.wait(0.5)
        waits.append(s.now - began)
        fetch = s.fetches.pop()
        s.feed("fetch_failed", fetch.announcement, fetch.source)
    assert waits == [0.0, 5.0, 10.0, 20.0]


def test_who_found_all_lines_taken_finds_one_kept_when_it_asks_again_and_then_others_have_their_turn(shell, said):
    s, newest = hidden(shell, "abcde", max_fetches=1, ask_every=5.0), said("b")
    s.reply("a", said("a"), said("c"), said("d"), said("e"))
    assert s.asked_by("b", newest).wants == ()
    fetch = s.fetches.pop()
    s.feed("fetched", fetch.announcement, fetch.source)
    assert s.fetches == []  # nobody takes what is kept
    s.wait(5.0)
    assert s.asked_by("b", newest).wants == _of(newest)
    assert s.asked_by("b", said("b", 1, 2)).wants == ()  # one at a time
    fetch = s.fetches.pop()
    s.feed("fetched", fetch.announcement, fetch.source)
    assert [f.pushed for f in s.fetches] == [False]


def test_a_line_is_not_kept_for_ever_for_who_asks_no_more(shell, said):
    s = hidden(shell, "abc", max_fetches=1, ask_every=5.0)
    s.reply("a", said("a"), said("c"))
    s.asked_by("b", said("b"))
    fetch = s.fetches.pop()
    s.feed("fetched", fetch.announcement, fetch.source)
    s.wait(9.9)
    assert s.fetches == []
    s.wait(0.2)
    assert [f.pushed for f in s.fetches] == [False]


def test_wants_keep_to_what_may_be_fetched(shell, said):
    s = hidden(shell, "abc", max_merge=1, max_fetches=1)
    s.reply("a", said("a"))
    assert s.asked_by("b", said("b")).wants == ()  # a's takes the one line
    s.fetch_all()
    assert s.asked_by("b", said("b")).wants == ()  # and the one place
    s = hidden(shell)
    s.feed("storage_full", said("a"))
    assert s.asked_by("b", said("b")).wants == ()
    s.wait(s.machine.policy.storage_retry)
    assert s.asked_by("b", said("b")).wants
    s = hidden(shell)
    s.feed("stop")
    assert s.asked_by("b", said("b")).wants == ()
    assert s.step is Step.LEFT


def test_who_finished_wants_what_it_lacks_of_a_hidden_one_before_it_ends(shell, said):
    s = hidden(shell, "b", max_merge=1)
    s.machine.step, s.machine.deadline = Step.LINGERING, s.now + 600.0
    final = said("b", final=True)
    assert s.asked_by("b", final, phase="final").wants == _of(final)


def wanted(*digests: str) -> TellMessage:
    return TellMessage(wants=digests)


def test_what_is_wanted_of_me_is_pushed_one_after_the_other_and_the_last_word_counts(shell):
    s = shell("abc", max_fetches=2)
    pushes = lambda: [(e.peer, e.digests) for e in s.others if isinstance(e, want.Push)]  # noqa: E731
    for peer in "abc":
        s.asks.clear()
        s.feed("asked", peer, wanted(f"{peer}1", f"{peer}2"))
    assert pushes() == [("a", ("a1", "a2")), ("b", ("b1", "b2"))]
    s.feed("asked", "a", wanted("a3"))
    s.feed("asked", "a", wanted("a4"))
    s.feed("pushed", "a")
    assert pushes()[2:] == [("c", ("c1", "c2"))]
    s.feed("pushed", "b")
    assert pushes()[3:] == [("a", ("a4",))]
    s.feed("pushed", "a")
    s.feed("pushed", "c")
    assert len(pushes()) == 4


@pytest.mark.parametrize("gone", [True, False])
def test_who_leaves_the_roster_is_pushed_nothing_more(gone):
    pushes = Pushes(1)
    pushes.want("a", ("1",))
    assert [p.peer for p in pushes.start()] == ["a"]
    pushes.want("b", ("2",))
    if gone:
        pushes.forget("b")
    pushes.ended("a")
    assert [p.peer for p in pushes.start()] == ([] if gone else ["b"])
