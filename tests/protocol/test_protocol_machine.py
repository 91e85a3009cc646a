"""The state machine in its stories: start, adopt, quorum, cadence, end game, full disk, stop, restart, lies."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest

from braintorrent.protocol import effects as want
from braintorrent.protocol.entry import Entry
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.policy import StopRule
from braintorrent.protocol.steps import Restored, Step
from braintorrent.protocol.version import Version

Said = Callable[..., Announcement]
Make = Callable[..., Any]


def one_version(s: Any, merges: bool = False, score: float | None = None) -> Announcement:
    if merges:
        s.merge()
    s.train(score)
    return s.publish()


def finish(s: Any) -> Announcement:
    """Train alone to the end of a stop rule of one version."""
    for peer in [a.peer for a in s.asks]:
        s.reply(peer, phase="seeking")
    return one_version(s)


# ----------------------------------------------------------------- start


def test_alone_it_looks_for_a_while_and_then_trains(shell: Make) -> None:
    s = shell("", alone_after=30.0)
    s.wait(29.9)
    assert s.work == []
    s.wait(0.2)
    assert s.train() == want.Train(alone=True)


def test_when_everyone_answers_that_there_is_nothing_it_trains_at_once(shell: Make) -> None:
    s = shell("ab")
    s.reply("a", phase="seeking")
    assert s.step is Step.SEEKING
    s.reply("b", phase="seeking")
    assert s.train() == want.Train(alone=False)


def test_a_newcomer_adopts_before_it_trains(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("a"), said("b"))
    assert s.step is Step.SEEKING
    s.fetch_all()
    assert s.step is Step.SEEKING  # b has not been tried
    s.silence("b")
    merge = s.merge()
    assert merge.adopt
    assert [a.author for a in merge.candidates] == ["a", "b"]
    assert s.train() == want.Train(alone=False)


def test_a_newcomer_that_can_fetch_nothing_trains_when_its_time_is_up(shell: Make, said: Said) -> None:
    s = shell("a", alone_after=30.0)
    s.reply("a", said("a"))
    fetch = s.fetches.pop()
    s.now = 31.0
    s.feed("tick")
    assert s.step is Step.SEEKING  # the bytes are under way
    s.feed("fetch_failed", fetch.announcement, fetch.source)
    assert s.step is Step.TRAINING


def test_a_newcomer_among_busy_labs_starts_in_time_though_something_is_always_under_way(
    shell: Make, said: Said
) -> None:
    s = shell("ab", alone_after=30.0, max_fetches=2)
    for counter in range(1, 40):
        s.now += 1.0
        s.asked_by("a", said("a", 1, counter))
        s.asked_by("b", said("b", 1, counter))
        fetch = s.fetches.pop(0)
        s.feed("fetched", fetch.announcement, fetch.source)
        assert s.fetches  # there is never a moment of rest
        if s.work:
            break
    assert s.now <= 31.0
    assert s.merge().adopt


def test_a_newcomer_among_more_labs_than_one_merge_takes_starts_at_once(shell: Make, said: Said) -> None:
    s = shell("abcdef", max_merge=2)
    for peer in "abcdef":
        s.reply(peer, said(peer))
    s.fetch_all()
    merge = s.merge()
    assert merge.adopt
    assert len(merge.candidates) == 2
    assert s.now < 0.1


def test_if_no_model_can_be_adopted_it_trains_from_the_shared_start(shell: Make, said: Said) -> None:
    s = shell("a")
    s.reply("a", said("a"))
    s.fetch_all()
    s.merge(a="not finite")
    assert s.step is Step.TRAINING
    assert s.machine.table.entries["a"].refused == {Version(1, 1): "not finite"}
    assert want.Forget(said("a")) in s.others


# ----------------------------------------------------------------- the round


def test_a_merge_takes_what_is_held_when_a_version_ends_and_nobody_is_waited_for(shell: Make, said: Said) -> None:
    s = shell("abc")
    s.reply("a", said("a"))
    s.silence("b")
    s.silence("c")
    s.fetch_all()
    one_version(s, merges=True)
    assert s.step is Step.TRAINING  # nothing newer: train on
    s.asked_by("a", said("a", 1, 2))
    s.asked_by("c", said("c"))
    fetch = s.fetches.pop(0)
    assert fetch.announcement == said("a", 1, 2)
    s.feed("fetched", fetch.announcement, fetch.source)
    one_version(s)
    merge = s.merge()
    assert merge.candidates == (said("a", 1, 2),)  # c is still under way
    assert not merge.adopt


def test_what_a_merge_reads_is_forgotten_only_after_it(shell: Make, said: Said) -> None:
    s = shell("a")
    s.reply("a", said("a"))
    s.fetch_all()
    assert isinstance(s.work[0], want.Merge)
    s.asked_by("a", said("a", 1, 2))
    s.fetch_all()
    assert s.others == []
    s.merge()
    assert s.others == [want.Forget(said("a"))]
    assert s.machine.table.candidates() == [said("a", 1, 2)]


def test_publishing_is_telling_everyone_who_answers(shell: Make) -> None:
    s = shell("abc", ask_every=1000.0)
    s.silence("c")
    for peer in "ab":
        s.reply(peer, phase="seeking")
    s.wait(31.0)
    s.asks.clear()
    s.machine.contacts.of["c"].failures = 1
    newest = one_version(s)
    assert sorted(ask.peer for ask in s.asks) == ["a", "b"]
    assert all(ask.message.newest == newest for ask in s.asks)


def test_quorum_waits_no_longer_than_patience(shell: Make, said: Said) -> None:
    s = shell("ab", quorum=2, patience=60.0, ask_every=1000.0)
    s.reply("a")
    s.reply("b")
    one_version(s)
    assert s.step is Step.READY
    s.asked_by("a", said("a"))
    s.fetch_all()
    s.wait(59.9)
    assert s.work == []
    s.wait(0.2)
    assert s.merge() == want.Merge((said("a"),), below_quorum=True)


def test_quorum_is_met_as_soon_as_enough_is_held(shell: Make, said: Said) -> None:
    s = shell("ab", quorum=2, patience=60.0)
    s.reply("a")
    s.reply("b")
    one_version(s)
    s.asked_by("a", said("a"))
    s.asked_by("b", said("b"))
    s.fetch_all()
    assert s.merge() == want.Merge((said("a"), said("b")))


def test_with_nobody_there_quorum_costs_patience_and_no_more(shell: Make) -> None:
    s = shell("", quorum=1, patience=60.0, alone_after=0.0)
    one_version(s)
    s.wait(59.9)
    assert s.work == []
    s.wait(0.2)
    assert s.step is Step.TRAINING


def test_poisson_cadence_has_the_mean_it_was_given(shell: Make) -> None:
    s = shell("", mean_interval=50.0, alone_after=0.0)
    gaps = []
    for _ in range(400):
        one_version(s)
        before = s.now
        while not s.work:
            s.now = s.machine.next_deadline()
            s.feed("tick")
        gaps.append(s.now - before)
    assert 42.0 < mean(gaps) < 58.0
    assert min(gaps) < 5.0
    assert max(gaps) > 150.0


def test_more_candidates_than_one_merge_takes_are_drawn_by_lot(shell: Make, said: Said) -> None:
    s = shell("abcdef", max_merge=3, max_fetches=9)
    for peer in "abcdef":
        s.reply(peer)
    merged: set[str] = set()
    for counter in range(1, 12):
        for peer in "abcdef":
            s.asked_by(peer, said(peer, 1, counter))
        s.fetch_all()
        one_version(s, merges=not isinstance(s.work[0], want.Train))
        if isinstance(s.work[0], want.Merge):
            assert len(s.work[0].candidates) <= 3
            merged |= {a.author for a in s.work[0].candidates}
    assert merged == set("abcdef")


def undo(s: Any) -> list[str]:
    """The merge under way did worse, and is undone."""
    authors = [a.author for a in s.work.pop().candidates]
    s.feed("merged", [], {}, worse=authors)
    return authors


def test_who_made_a_merge_worse_waits_for_something_newer_and_keeps_nobody_waiting(shell: Make, said: Said) -> None:
    s = shell("ab", max_merge=1, max_fetches=9)
    for peer in "ab":
        s.reply(peer)
    one_version(s)
    for peer in "ab":
        s.asked_by(peer, said(peer))
    turns = []
    for _ in range(2):
        s.fetch_all()
        one_version(s)
        turns += undo(s)  # so that there is room for the other
    assert sorted(turns) == ["a", "b"]
    one_version(s)
    assert s.step is Step.TRAINING  # the same two again would be the same again
    assert not any(entry.refused for entry in s.machine.table.entries.values())
    s.asked_by("a", said("a", 1, 2))
    s.fetch_all()
    one_version(s)
    assert s.merge().candidates == (said("a", 1, 2),)


def test_what_made_a_merge_worse_still_goes_into_the_last_one(shell: Make, said: Said) -> None:
    s = shell("a", stop=StopRule(versions=1), ask_every=1000.0)
    s.reply("a", said("a", final=True), phase="final")
    s.fetch_all()
    assert undo(s) == ["a"]
    one_version(s)
    s.reply("a", phase="final", settled=True)
    assert ended(s) == (["a"], "finished")


# ----------------------------------------------------------------- the end


def ended(s: Any) -> tuple[list[str], str | None]:
    merge = s.merge()
    assert merge.last
    return [a.author for a in merge.candidates], s.left()


def test_it_ends_with_a_last_merge_of_everyone_when_all_present_are_settled(shell: Make, said: Said) -> None:
    s = shell("ab", stop=StopRule(versions=1))
    mine = finish(s)
    assert mine.final
    assert s.machine.phase == "final"
    for peer in "ab":
        s.reply(peer, said(peer, final=True), phase="final", settled=True)
    assert s.work == []  # their bytes are not here yet
    s.fetch_all()
    assert ended(s) == (["a", "b"], "finished")
    assert [ask.message.phase for ask in s.asks if ask.message.phase == "leaving"] == ["leaving"] * 2


def test_the_last_merge_is_not_cut_short_by_max_merge(shell: Make, said: Said) -> None:
    s = shell("abcdef", stop=StopRule(versions=1), max_merge=2, max_fetches=2)
    finish(s)
    for peer in "abcdef":
        s.reply(peer, said(peer, final=True), phase="final", settled=True)
    s.fetch_all()
    assert ended(s) == (list("abcdef"), "finished")


def test_it_waits_for_who_is_still_at_work_but_no_longer_than_linger(shell: Make, said: Said) -> None:
    s = shell("a", stop=StopRule(versions=1), linger=100.0)
    finish(s)
    while s.now < 99.0:
        s.wait(1.0)
        if s.asks:
            s.reply("a", said("a"), settled=True)
        s.fetch_all()
        assert s.work == []
    s.wait(1.1)
    assert ended(s) == (["a"], "finished")


def test_it_waits_for_who_lacks_its_last_version(shell: Make, said: Said) -> None:
    s = shell("a", stop=StopRule(versions=1))
    mine = finish(s)
    s.reply("a", said("a", final=True), phase="final", settled=False)
    s.fetch_all()
    assert s.work == []
    s.asked_by("a", said("a", final=True), phase="final", me=mine.version)
    assert ended(s) == (["a"], "finished")


def test_an_answer_to_an_older_ask_does_not_settle_the_last_version(shell: Make, said: Said) -> None:
    s = shell("a", stop=StopRule(versions=2))
    s.reply("a", said("a", final=True), phase="final")
    s.fetch_all()
    one_version(s, merges=True)
    asked_before = s.asks.pop()
    one_version(s)  # final, while that ask is under way
    assert s.step is Step.LINGERING
    s.asks.append(asked_before)
    s.reply("a", phase="final", settled=True)
    assert s.step is Step.LINGERING
    s.reply("a", phase="final", settled=True)
    assert s.step is Step.CLOSING


def test_it_waits_while_one_it_serves_lacks_the_last_word_of_a_dead_third(shell: Make, said: Said) -> None:
    s = shell("ab", stop=StopRule(versions=1))
    s.machine.table.hold(said("b", 1, 3))
    mine = finish_with(s, "a")
    s.reply("a", said("a", final=True), phase="final", settled=False)
    s.fetch_all()
    s.now += 40.0
    s.asked_by("a", said("a", final=True), phase="final", me=mine.version)  # it was told of b's model now
    assert s.step is Step.LINGERING
    s.asked_by("a", said("a", final=True), phase="final", me=mine.version, b=Version(1, 3))
    assert ended(s) == (["a", "b"], "finished")


def finish_with(s: Any, peer: str) -> Announcement:
    """As `finish`, but others hold something already: the newcomer adopts it."""
    s.reply(peer, phase="seeking")
    s.silence("b")
    return one_version(s, merges=True)


def test_a_final_version_that_was_refused_keeps_nobody_waiting(shell: Make, said: Said) -> None:
    s = shell("ab", stop=StopRule(versions=1))
    finish(s)
    for peer in "ab":
        s.reply(peer, said(peer, final=True), phase="final", settled=True)
    for fetch in list(s.fetches):
        s.fetches.remove(fetch)
        if fetch.announcement.author == "a":
            s.feed("fetch_failed", fetch.announcement, fetch.source, refuse="schema")
        else:
            s.feed("fetched", fetch.announcement, fetch.source)
    assert ended(s) == (["b"], "finished")


def test_the_dead_are_not_waited_for_and_their_last_model_counts(shell: Make, said: Said) -> None:
    s = shell("ab", stop=StopRule(versions=1))
    s.asked_by("b", said("b"))
    s.fetch_all()
    s.reply("a", phase="seeking")
    s.silence("b")
    s.merge()
    one_version(s)

    def b_is_dead() -> None:
        for ask in list(s.asks):
            s.silence("b") if ask.peer == "b" else s.reply("a", said("a", final=True), phase="final", settled=True)
        s.fetch_all()

    s.wait(60.0, meanwhile=b_is_dead)
    assert ended(s) == (["a", "b"], "finished")


def test_the_last_merge_waits_for_the_bytes_of_a_third_that_are_under_way(shell: Make, said: Said) -> None:
    s = shell("ab", stop=StopRule(versions=1), alone_after=5.0)
    s.reply("a", phase="seeking")
    s.wait(5.1)
    one_version(s)
    s.reply("a")  # to an ask of before; another follows
    s.now += 40.0  # b was never heard from
    s.reply("a", said("a", final=True), said("b"), phase="final", settled=True)
    own, third = sorted(s.fetches, key=lambda fetch: fetch.announcement.author)
    s.fetches.clear()
    s.feed("fetched", own.announcement, "a")
    assert s.step is Step.LINGERING
    s.feed("fetched", third.announcement, "a")
    assert ended(s) == (["a", "b"], "finished")


def test_alone_to_the_end_it_leaves_without_a_merge(shell: Make) -> None:
    s = shell("", alone_after=3.0, ask_every=5.0, stop=StopRule(versions=1))
    s.wait(3.0)
    one_version(s)
    s.wait(5.0)
    assert s.left() == "finished"


@pytest.mark.parametrize(
    ("rule", "versions"),
    [
        (StopRule(versions=3), 3),
        (StopRule(minutes=1.0), 7),
        (StopRule(target=0.45), 5),
        (StopRule(patience=2), 8),
        (StopRule(versions=9, target=0.25), 3),
    ],
)
def test_stop_rules(shell: Make, rule: StopRule, versions: int) -> None:
    """Versions of 10 s, no event between; scores rise by .1 a version until .6 and fall then."""
    s = shell("", alone_after=0.0, stop=rule)
    count = 0
    while s.step is Step.TRAINING:
        s.now += 10.0
        count += 1
        s.train(0.1 * min(count, 12 - count))
        s.publish()
    # The clock started with the process, at 0.
    assert count == (6 if rule.minutes else versions)


# ----------------------------------------------------------------- the disk is full


def test_a_full_disk_pauses_publishing_and_the_same_version_goes_out_later(shell: Make) -> None:
    s = shell("", alone_after=0.0, storage_retry=10.0)
    s.train()
    first = s.work.pop()
    s.feed("published", None)
    s.wait(9.9)
    assert s.work == []
    s.wait(0.2)
    assert s.work == [first]
    s.feed("published", None)
    s.work.clear()
    s.wait(10.1)
    s.publish()
    assert s.step is Step.TRAINING


def test_a_full_disk_pauses_fetching_and_serving_goes_on(shell: Make, said: Said) -> None:
    s = shell("ab", storage_retry=10.0, ask_every=1000.0)
    s.reply("a", said("a"))
    s.feed("storage_full", s.fetches.pop().announcement)
    s.reply("b", said("b"))
    assert s.fetches == []
    assert s.asked_by("a").phase == "seeking"
    s.wait(9.9)
    assert s.fetches == []
    s.wait(0.2)
    assert sorted(f.announcement.author for f in s.fetches) == ["a", "b"]


# ----------------------------------------------------------------- a person stops it


def training(s: Any) -> None:
    for peer in [a.peer for a in s.asks]:
        s.reply(peer, phase="seeking")


@pytest.mark.parametrize("at", ["seeking", "ready", "lingering", "full disk"])
def test_stop_when_nothing_is_under_way_leaves_at_once(shell: Make, at: str) -> None:
    s = shell("a", quorum=9, stop=StopRule(versions=1) if at == "lingering" else StopRule())
    if at != "seeking":
        training(s)
        s.train()
    if at == "full disk":
        s.work.pop()
        s.feed("published", None)
    elif at != "seeking":
        s.asked_by("a", me=s.publish().version)
    s.feed("stop")
    assert s.left() == "stopped"
    assert s.machine.next_deadline() is None


def test_stop_while_training_ends_the_batch_first(shell: Make) -> None:
    s = shell("a")
    training(s)
    s.feed("stop")
    assert s.others == [want.Halt()]
    assert s.machine.next_deadline() is None
    s.work.clear()
    s.feed("trained", False, None)
    assert s.left() == "stopped"


def test_stop_that_comes_with_the_last_batch_still_publishes(shell: Make) -> None:
    s = shell("a")
    training(s)
    s.feed("stop")
    s.train()
    newest = s.publish()
    assert s.left() is None
    s.asked_by("a", me=newest.version)
    assert s.left() == "stopped"


def test_stop_while_merging_or_publishing_waits_for_it(shell: Make, said: Said) -> None:
    s = shell("a")
    s.reply("a", said("a"))
    s.fetch_all()
    s.feed("stop")
    assert s.left() is None
    s.merge()
    assert s.left() == "stopped"
    s = shell("a")
    training(s)
    s.train()
    s.feed("stop")
    assert s.left() is None
    s.work.pop()
    s.feed("published", None)
    assert s.left() == "stopped"


def test_stop_in_the_last_merge_finishes(shell: Make, said: Said) -> None:
    s = shell("a", stop=StopRule(versions=1))
    finish(s)
    s.reply("a", said("a", final=True), phase="final", settled=True)
    s.fetch_all()
    s.feed("stop")
    assert ended(s) == (["a"], "finished")


def test_after_leave_there_is_nothing(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.feed("stop")
    s.asks.clear()
    s.others.clear()
    reply = s.asked_by("a", said("a"))
    s.asked_by("a", said("a", content="another"))
    s.feed("sighted", "b", "b:2")
    s.wait(1000.0)
    assert reply.phase == "leaving"
    assert (s.asks, s.fetches, s.work, s.others) == ([], [], [], [])


# ----------------------------------------------------------------- restart


def test_a_restart_with_a_checkpoint_trains_on_at_once(shell: Make, said: Said) -> None:
    s = shell("a", meet=False, restored=Restored(20, said("me", 10, 3), resume=True))
    assert s.step is Step.TRAINING
    s.train()
    assert s.publish().version == Version(20, 4)


def test_a_restart_goes_on_counting_in_a_new_incarnation_and_merges_what_is_newer(shell: Make, said: Said) -> None:
    entries = {"a": Entry(held=said("a", 1, 4), merged=Version(1, 4)), "b": Entry(held=said("b", 1, 2))}
    s = shell("ab", restored=Restored(20, said("me", 10, 3), entries))
    s.reply("a")
    s.reply("b")
    merge = s.merge()
    assert merge == want.Merge((said("b", 1, 2),))
    s.train()
    assert s.publish().version == Version(20, 4)


def test_a_restart_does_not_wait_for_the_dead(shell: Make, said: Said) -> None:
    s = shell("ab", alone_after=600.0, ask_every=5.0, restored=Restored(20, said("me", 10, 3)))
    s.wait(4.9)
    assert s.work == []
    s.wait(0.2)
    assert s.step is Step.TRAINING


def test_a_restart_says_the_very_same_announcement_again(shell: Make, said: Said) -> None:
    newest = said("me", 10, 3)
    s = shell("a", restored=Restored(20, newest))
    assert s.asks[0].message.newest is newest
    assert s.asked_by("a").announcements == (newest,)


def test_a_restart_after_the_end_serves_and_ends_again(shell: Make, said: Said) -> None:
    final = said("me", 10, 3, final=True)
    entries = {"a": Entry(held=said("a", 1, 4, final=True), merged=Version(1, 4))}
    s = shell("a", meet=False, stop=StopRule(versions=3), restored=Restored(20, final, entries))
    assert s.step is Step.LINGERING
    s.wait(20.0)
    assert s.step is Step.LINGERING  # others are given time to appear
    s.feed("sighted", "a", "a:1")
    s.reply("a", phase="final", settled=True)
    assert ended(s) == (["a"], "finished")


def test_a_restart_after_the_end_finds_nobody_and_ends(shell: Make, said: Said) -> None:
    final = said("me", 10, 3, final=True)
    s = shell("a", meet=False, stop=StopRule(versions=3), alone_after=30.0, restored=Restored(20, final))
    s.wait(31.0)
    assert s.left() == "finished"


def test_a_restart_with_a_longer_stop_rule_learns_on(shell: Make, said: Said) -> None:
    s = shell("a", stop=StopRule(versions=5), restored=Restored(20, said("me", 10, 3, final=True)))
    s.reply("a")
    assert s.step is Step.TRAINING


def test_minutes_of_earlier_lives_count(shell: Make, said: Said) -> None:
    final = said("me", 10, 3, final=True)
    s = shell("a", stop=StopRule(minutes=10.0), restored=Restored(20, final, elapsed=601.0))
    assert s.step is Step.LINGERING
    s = shell("a", stop=StopRule(minutes=10.0), restored=Restored(20, final, elapsed=599.0))
    assert s.step is Step.SEEKING


# ----------------------------------------------------------------- what is believed


def test_two_contents_for_one_version_are_quarantined_with_both_proofs(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("a"))
    s.fetch_all()
    s.asked_by("b")
    one, other = said("a"), said("a", content="another")
    s.reply("b", other)
    assert s.others == [want.Quarantine(one, other), want.Forget(one)]
    assert s.asked_by("b").announcements == ()
    s.asked_by("a", said("a", 1, 2))
    assert s.fetches == []
    s.asked_by("a", said("a", 2, 1))  # another life is believed
    assert s.fetches[0].announcement == said("a", 2, 1)


@pytest.mark.parametrize("mine", [None, (10, 3)])
def test_a_lost_disk_makes_the_incarnation_rise_above_what_others_remember(shell: Make, said: Said, mine: Any) -> None:
    restored = Restored(11, said("me", *mine) if mine else None)
    s = shell("a", restored=restored)
    s.reply("a", said("me", 50, 9))
    s.train()
    assert s.publish().version > Version(50, 9)


def test_if_others_hold_another_content_of_my_newest_version_i_take_a_new_incarnation(shell: Make, said: Said) -> None:
    s = shell("a", restored=Restored(11, said("me", 11, 3)))
    s.reply("a", said("me", 11, 3, content="another"))
    s.train()
    assert s.publish().version == Version(12, 4)


def test_who_is_struck_off_is_gone_from_everything(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("a"))
    s.fetch_all()
    s.asked_by("b", said("b"))
    under_way = s.fetches.pop()
    s.feed("roster_changed", frozenset({"me"}))
    assert want.Forget(said("a")) in s.others
    s.feed("fetched", under_way.announcement, "b")
    assert want.Forget(said("b")) in s.others
    assert s.machine.table.entries == {}
    assert s.machine.contacts.of == {}
    assert s.asked_by("a", said("a", 1, 2)).announcements == ()
    s.wait(31.0)
    assert s.train() == want.Train(alone=True)


def test_who_is_struck_off_during_a_merge_is_not_merged_again(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("a"))
    s.silence("b")
    s.fetch_all()
    s.feed("roster_changed", frozenset({"me", "b"}))
    assert s.others == []  # the merge is reading
    s.merge()
    assert s.others == [want.Forget(said("a"))]
    assert s.machine.table.entries == {}


def test_who_is_put_on_the_roster_is_met_like_anyone(shell: Make, said: Said) -> None:
    s = shell("a")
    s.feed("sighted", "n", "n:1")
    assert "n" not in s.machine.contacts.of
    s.feed("roster_changed", frozenset({"me", "a", "n"}))
    s.feed("sighted", "n", "n:1")
    s.reply("n", said("n"))
    assert s.fetches[0].announcement == said("n")


def test_who_had_no_turn_for_longest_is_fetched_first_and_something_newer_meanwhile_is_part_of_that_turn(
    shell: Make, said: Said
) -> None:
    for seed in range(8):
        s = shell("abc", max_fetches=1, seed=seed)
        for peer in "ab":
            s.asked_by(peer, said(peer))
            s.fetch_all()
            s.now += 100.0
        s.asked_by("c", said("c"))  # has the line
        for peer in "ba":
            s.asked_by(peer, said(peer, 1, 2))
        order = []
        for counter in (3, 4, 5):
            fetch = s.fetches.pop(0)
            s.asked_by("a", said("a", 1, counter))
            s.feed("fetched", fetch.announcement, fetch.source)
            order.append(s.fetches[0].announcement.author)
        assert order == ["a", "a", "b"]
