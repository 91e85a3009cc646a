"""The state machine in trouble: bytes that never come, bytes that vanish, a disk without room, a roster that shrank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from braintorrent.protocol import effects as want
from braintorrent.protocol.entry import Entry
from braintorrent.protocol.messages import Announcement, TellMessage
from braintorrent.protocol.policy import StopRule
from braintorrent.protocol.steps import Restored, Step
from braintorrent.protocol.version import Version

Said = Callable[..., Announcement]
Make = Callable[..., Any]


def one_version(s: Any, score: float | None = None) -> Announcement:
    if isinstance(s.work[0], want.Merge):
        s.merge()
    s.train(score)
    return s.publish()


def forgotten(s: Any) -> list[Announcement]:
    return [e.announcement for e in s.others if isinstance(e, want.Forget)]


# ----------------------------------------------------------------- looking for a model


def test_a_newcomer_whose_first_fetch_failed_tries_again_before_it_trains(shell: Make, said: Said) -> None:
    s = shell("a", alone_after=30.0, ask_every=5.0)
    s.reply("a", said("a"))
    fetch = s.fetches.pop()
    s.feed("fetch_failed", fetch.announcement, fetch.source)
    assert s.work == []
    s.wait(5.1)
    s.fetch_all()
    assert s.merge().adopt


@pytest.mark.parametrize("others", ["abc", "abcdefgh"])
def test_a_newcomer_whose_fetches_stall_and_fail_starts_soon_after_its_time(
    shell: Make, said: Said, others: str
) -> None:
    s = shell(others, alone_after=30.0, ask_deadline=10.0, ask_every=1000.0)
    for peer in others:
        s.reply(peer, said(peer))
    ends = {fetch: 29.0 + 0.1 * i for i, fetch in enumerate(s.fetches)}
    while not s.work and s.now < 500.0:
        s.wait(0.1)
        for fetch in [f for f, end in ends.items() if end <= s.now]:
            del ends[fetch]
            s.fetches.remove(fetch)
            s.feed("fetch_failed", fetch.announcement, fetch.source)
        for fetch in s.fetches:
            assert s.work or fetch in ends or s.now < 30.0, "a new fetch past the time to look"
            ends.setdefault(fetch, s.now + 1000.0)
    assert isinstance(s.work[0], want.Train)
    assert 30.0 <= s.now <= 70.2


def test_past_its_time_it_starts_no_fetch_and_goes_on_fetching_once_it_trains(shell: Make, said: Said) -> None:
    s = shell("ab", alone_after=30.0, ask_every=1000.0)
    s.reply("a", said("a"))
    stalled = s.fetches.pop()
    s.wait(31.0)
    s.reply("b", said("b"))
    assert s.fetches == []
    s.feed("fetch_failed", stalled.announcement, stalled.source)
    assert isinstance(s.work[0], want.Train)
    assert [f.announcement for f in s.fetches] == [said("b")]


def test_a_restart_inside_a_version_does_not_call_itself_alone_before_anyone_could_speak(
    shell: Make, said: Said
) -> None:
    s = shell("a", meet=False, ask_every=5.0, restored=Restored(20, said("me", 10, 3), resume=True))
    s.now = 1.0
    assert s.train() == want.Train(alone=False)
    s.publish()
    s.now = 6.0
    assert s.train() == want.Train(alone=False)  # wanted at 1.0
    s.publish()
    assert s.train() == want.Train(alone=True)


# ----------------------------------------------------------------- who and what is believed


def test_who_was_struck_off_while_this_peer_was_down_is_neither_merged_nor_told(shell: Make, said: Said) -> None:
    entries = {"x": Entry(held=said("x")), "a": Entry(held=said("a"))}
    s = shell("ab", restored=Restored(20, entries=entries), alone_after=30.0)
    assert forgotten(s) == [said("x")]
    assert [a.author for a in s.asked_by("b").announcements] == ["a"]
    s.wait(31.0)
    assert [a.author for a in s.merge().candidates] == ["a"]


def test_gossip_about_an_absent_peer_does_not_make_it_asked_sooner(shell: Make) -> None:
    s = shell("ab", meet=False, ask_every=5.0)
    s.feed("sighted", "a", "good:1", proven=True)
    s.silence("a")
    s.feed("sighted", "b", "b:1")
    s.asks.clear()
    s.feed("asked", "b", TellMessage(addresses={"a": tuple(f"rumour:{port}" for port in range(1, 9))}))
    assert s.asks == []
    assert s.machine.contacts.of["a"].addresses[0] == "good:1"
    s.feed("sighted", "a", "moved:1")
    assert [ask.peer for ask in s.asks] == ["a"]


def test_a_score_that_is_no_number_is_no_score(shell: Make) -> None:
    s = shell("", alone_after=0.0, stop=StopRule(patience=2))
    for score in (float("nan"), 0.5, float("nan"), 0.6, 0.7):
        assert not one_version(s, score).final
    assert (s.machine.best, s.machine.since_best) == (0.7, 0)


def test_a_version_that_waits_for_room_takes_the_incarnation_learnt_meanwhile(shell: Make, said: Said) -> None:
    s = shell("a", storage_retry=10.0)
    s.reply("a")
    s.train()
    assert s.work.pop().version == Version(10, 1)
    s.feed("published", None)
    s.asked_by("b")
    s.feed("asked", "a", TellMessage((said("me", 50, 9),)))
    s.wait(10.1)
    assert s.publish().version == Version(51, 1)


# ----------------------------------------------------------------- the end


def lingering(shell: Make, said: Said, others: str = "a", **policy: Any) -> Any:
    s = shell(others, stop=StopRule(versions=1), **policy)
    for peer in others:
        s.reply(peer, phase="seeking")
    one_version(s)
    for peer in others:
        s.reply(peer, said(peer, final=True), phase="final", settled=True)
    return s


def test_a_present_peer_that_keeps_serving_bad_bytes_holds_nobody_up(shell: Make, said: Said) -> None:
    s = lingering(shell, said, linger=600.0, ask_every=5.0)
    failures = 0

    def bad_bytes() -> None:
        nonlocal failures
        for ask in list(s.asks):
            s.reply(ask.peer, said("a", final=True), phase="final", settled=True)
        for fetch in s.fetches:
            failures += 1
            s.feed("fetch_failed", fetch.announcement, fetch.source)
        s.fetches.clear()

    bad_bytes()
    s.wait(10.0, meanwhile=bad_bytes)
    assert s.step is Step.LINGERING  # twice may be bad luck
    s.wait(20.0, meanwhile=bad_bytes)
    assert s.left() == "finished"
    assert failures == 3


def test_stop_in_the_last_merge_waits_for_nothing_more(shell: Make, said: Said) -> None:
    s = lingering(shell, said)
    s.fetch_all()
    assert s.step is Step.CLOSING
    s.feed("stop")
    s.feed("stop")
    assert s.others == [want.Halt()]


# ----------------------------------------------------------------- bytes that vanish, and a disk without room


def test_bytes_that_vanished_are_fetched_again_and_nothing_is_refused(shell: Make, said: Said) -> None:
    s = shell("a")
    s.reply("a", said("a"))
    s.fetch_all()
    (merge,) = s.work
    s.feed("lost", said("a"))
    s.work.clear()
    s.feed("merged", [], {})
    assert merge.candidates == (said("a"),)
    assert s.step is Step.TRAINING
    assert s.others == []
    entry = s.machine.table.entries["a"]
    assert (entry.held, entry.merged, entry.refused) == (None, Version(0, 0), {})
    assert s.asked_by("b").announcements == ()
    s.asked_by("a", said("a"))
    s.fetch_all()
    one_version(s)
    assert s.merge().candidates == (said("a"),)


def test_an_older_version_that_vanished_under_a_merge_leaves_the_newer_one_alone(shell: Make, said: Said) -> None:
    s = shell("a")
    s.reply("a", said("a"))
    s.fetch_all()
    s.asked_by("a", said("a", 1, 2))
    s.fetch_all()
    s.feed("lost", said("a"))
    assert s.machine.table.candidates() == [said("a", 1, 2)]


def merged_all(shell: Make, said: Said, others: str, **policy: Any) -> Any:
    """In training after a merge of everyone."""
    s = shell(others, storage_retry=10.0, **policy)
    for index, peer in enumerate(others):
        s.reply(peer, said(peer, 9 - index))
    s.fetch_all()
    s.merge()
    return s


def test_a_full_disk_gives_up_one_merged_model_and_keeps_its_room_for_the_own_version(shell: Make, said: Said) -> None:
    s = merged_all(shell, said, "abc", ask_every=1000.0)
    s.train()
    s.work.clear()
    s.feed("published", None)
    assert forgotten(s) == [said("c", 7)]  # the oldest
    s.asked_by("c", said("c", 7))
    s.asked_by("a", said("a", 9, 2))
    assert s.fetches == []
    s.wait(10.1)
    s.publish()
    assert [f.announcement for f in s.fetches] == [said("a", 9, 2)]  # c's is in what was just published
    s.asked_by("c", said("c", 7, 2))
    assert s.fetches[-1].announcement == said("c", 7, 2)


def test_for_an_own_version_even_what_waits_for_a_merge_goes_and_the_rest_is_merged(shell: Make, said: Said) -> None:
    s = merged_all(shell, said, "ab", ask_every=1000.0)
    for peer, version in (("a", 9), ("b", 8)):
        s.asked_by(peer, said(peer, version, 2))
    s.fetch_all()
    assert s.machine.table.candidates() == [said("a", 9, 2), said("b", 8, 2)]
    s.others.clear()
    s.feed("storage_full", said("a", 20))
    assert forgotten(s) == [], "nothing of one's own waits yet"
    s.train()
    s.work.clear()
    s.feed("published", None)
    assert forgotten(s) == [said("b", 8, 2)]
    s.wait(10.1)
    s.publish()
    assert s.merge().candidates == (said("a", 9, 2),)
    s.asked_by("b", said("b", 8, 3))
    assert s.fetches[-1].announcement == said("b", 8, 3)


def test_a_busy_ledger_costs_no_models_and_no_fetches(shell: Make, said: Said) -> None:
    s = merged_all(shell, said, "ab", ask_every=1000.0)
    s.asked_by("a", said("a", 9, 2))
    s.fetch_all()
    s.others.clear()
    s.train()
    s.work.clear()
    s.machine.published(None, s.now, full=False)
    s.feed("tick")
    assert forgotten(s) == []
    s.asked_by("b", said("b", 8, 2))
    assert s.fetches[-1].announcement == said("b", 8, 2)
    s.wait(10.1)
    s.publish()


def test_nothing_is_given_up_that_is_not_merged_or_whose_author_is_gone(shell: Make, said: Said) -> None:
    s = merged_all(shell, said, "ab", ask_every=1000.0, ask_deadline=1.0)
    s.now = 10_000.0  # nobody was heard from for long
    s.asked_by("a", said("a", 9, 2))
    s.fetch_all()
    s.others.clear()
    s.feed("storage_full", said("b", 20))
    assert s.machine.table.entries["a"].merged < s.machine.table.entries["a"].held.version
    assert forgotten(s) == []
    s.asked_by("b", phase="working")
    s.feed("storage_full", said("b", 20))
    assert forgotten(s) == [said("b", 8)]


def test_what_was_given_up_is_fetched_again_for_the_last_merge(shell: Make, said: Said) -> None:
    s = merged_all(shell, said, "ab", stop=StopRule(versions=1))
    s.feed("storage_full", said("a", 20))
    assert forgotten(s) == [said("b", 8)]
    one_version(s)
    s.reply("b", said("b", 8), phase="final", settled=True)
    assert [f.announcement for f in s.fetches] == [said("b", 8)]


def test_if_there_is_no_room_for_it_in_the_end_the_merge_of_before_is_enough(shell: Make, said: Said) -> None:
    s = merged_all(shell, said, "ab", stop=StopRule(versions=1))
    s.feed("storage_full", said("a", 20))
    one_version(s)
    s.reply("b", said("b", 8), phase="final", settled=True)
    s.feed("storage_full", s.fetches.pop().announcement)
    assert forgotten(s) == [said("b", 8)]  # a's is not given up for it
    for peer in "ab":
        s.asked_by(peer, phase="final", me=Version(10, 1))
    s.wait(11.0)
    assert s.fetches == []
