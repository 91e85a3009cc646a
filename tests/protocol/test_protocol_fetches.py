"""Fetches: never two of one author, limits respected, everyone gets a turn, a bad source is left alone for a while."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braintorrent.protocol.contacts import NEVER, Contacts
from braintorrent.protocol.fetches import BEHIND, HOPELESS, Fetches
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.policy import Policy
from braintorrent.protocol.table import Table
from braintorrent.protocol.version import Version

PEERS = "abcdefgh"


def said(author: str, counter: int = 1) -> Announcement:
    return Announcement("fed", author, Version(1, counter), f"{author}{counter}", 1, 1, 1.0, "", "", 1, False)


HIDDEN = "gh"  # of PEERS, where some can only call


def make(peers: str = PEERS, seed: int = 2, **policy: int) -> Fetches:
    rules, rng = Policy(**policy), Random(seed)  # type: ignore[arg-type]
    contacts = Contacts(rules, rng)
    for peer in peers:
        contacts.sighted(peer, f"{peer}:1", 0.0)
    return Fetches(rules, rng, Table(), contacts)


@given(
    st.integers(1, 4), st.integers(1, 6),
    st.lists(
        st.tuples(st.sampled_from(["hear", "ok", "bad", "merge"]), st.sampled_from(PEERS), st.integers(1, 9)),
        max_size=60,
    ),
)  # fmt: skip
def test_limits_hold_whatever_happens(at_once: int, max_merge: int, events: list[tuple[str, str, int]]) -> None:
    fetches = make("abcdef", max_fetches=at_once, max_merge=max_merge)
    for peer in HIDDEN:
        fetches.contacts.heard_from(peer, "working", 0.0)
    for now, (event, author, counter) in enumerate(events):
        flight = fetches.flying.get(author)
        if event == "hear":
            fetches.table.note(said(author, counter), author)
        elif event == "merge":
            for a in fetches.table.candidates():
                fetches.table.merge(a)
        elif flight is not None:
            fetches.ended(flight)
            fetches.table.hold(flight) if event == "ok" else fetches.failed(flight, author, float(now))
        before = dict(fetches.flying)
        asked = fetches.ask_for(author, float(now)) if event == "hear" else []
        begun = [*asked, *fetches.start(float(now))]
        assert len({f.announcement.author for f in begun} | before.keys()) == len(begun) + len(before)
        assert len(fetches.flying) <= at_once
        assert len(fetches.flying.keys() | fetches.table.fresh.keys()) <= max_merge
        assert list(fetches.start(float(now))) == []


def test_a_newer_version_of_a_model_in_hand_needs_no_room() -> None:
    fetches = make(max_merge=1)
    fetches.table.hold(said("a"))
    fetches.table.note(said("a", 2), "a")
    (fetch,) = fetches.start(0.0)
    assert fetch.announcement == said("a", 2)
    fetches.ended(fetch.announcement)
    fetches.table.hold(fetch.announcement)
    fetches.table.note(said("b"), "b")
    fetches.table.note(said("a", 3), "a")
    assert list(fetches.start(0.0)) == []  # but then b would wait for ever


def test_who_can_only_call_and_found_no_room_has_some_kept_for_the_next_merge() -> None:
    fetches = make("abcdef", max_merge=2)
    fetches.contacts.heard_from("g", "working", 0.0)
    for author in "abcdefg":
        fetches.table.note(said(author), author)
    for fetch in list(fetches.start(0.0)):
        fetches.ended(fetch.announcement)
        fetches.table.hold(fetch.announcement)
    assert fetches.ask_for("g", 0.0) == []
    for held in fetches.table.candidates():
        fetches.table.merge(held)
    assert len(list(fetches.start(1.0))) == 1
    assert [fetch.announcement.author for fetch in fetches.ask_for("g", 1.0)] == ["g"]


def test_for_the_last_merge_there_is_room_for_everyone() -> None:
    fetches = make(max_merge=2, max_fetches=99)
    for author in PEERS:
        fetches.table.note(said(author), author)
    assert len(list(fetches.start(0.0))) == 2
    assert len(list(fetches.start(0.0, everyone=True))) == len(PEERS) - 2


def test_with_more_authors_than_room_everyone_gets_a_turn() -> None:
    fetches, fetched = make(max_merge=1, max_fetches=1), set()
    for counter in range(1, 60):
        for author in PEERS:
            fetches.table.note(said(author, counter), author)
        for fetch in list(fetches.start(0.0)):
            fetches.ended(fetch.announcement)
            fetches.table.hold(fetch.announcement)
            fetched.add(fetch.announcement.author)
        for a in fetches.table.candidates():
            fetches.table.merge(a)
    assert fetched == set(PEERS)


def test_where_all_are_asked_who_had_no_turn_for_longest_comes_first() -> None:
    for seed in range(20):
        fetches = make(max_fetches=1, seed=seed)
        for now, author in [(0.0, "a"), (80.0, "b"), (90.0, "c")]:
            fetches.table.note(said(author), author)
            (fetch,) = fetches.start(now)
            fetches.table.hold(fetch.announcement)
            fetches.ended(fetch.announcement)
        order = []
        for author in "cba":
            fetches.table.note(said(author, 2), author)
        while begun := [*fetches.start(100.0)]:
            order += [fetch.announcement.author for fetch in begun]
            fetches.table.hold(begun[0].announcement)
            fetches.ended(begun[0].announcement)
        assert order == ["a", "b", "c"]


def test_who_had_something_newer_as_a_fetch_ended_keeps_its_place_but_once_in_a_row() -> None:
    for seed in range(20):
        fetches, order = make("ab", max_fetches=1, seed=seed), list[str]()
        fetches.table.note(said("b"), "b")
        (fetch,) = fetches.start(30.0)
        fetches.table.hold(fetch.announcement)
        fetches.ended(fetch.announcement)
        fetches.table.note(said("a"), "a")
        for counter in range(2, 6):
            fetches.table.note(said("b", counter), "b")
            (fetch,) = fetches.start(100.0)
            order.append(fetch.announcement.author)
            fetches.table.note(said(order[-1], counter + 1), order[-1])
            fetches.table.hold(fetch.announcement)
            fetches.ended(fetch.announcement)
        assert order == ["a", "a", "b", "b"]


def test_what_failed_or_gave_way_was_a_turn() -> None:
    for seed in range(20):
        fetches = make("ab", max_fetches=1, seed=seed)
        for author in "ab":
            fetches.table.note(said(author), author)
        (first,) = fetches.start(0.0)
        fetches.failed(first.announcement, first.source, 1.0)
        fetches.ended(first.announcement)
        (second,) = fetches.start(2.0)
        assert second.announcement.author != first.announcement.author, "it failed, and there is nothing newer of it"
        slow = second.announcement.author
        fetches.table.note(said(slow, 2), slow)  # always something newer
        fetches.ended(second.announcement)
        fetches.gave_way(second.announcement, second.source, 32.0)
        (third,) = fetches.start(32.0)
        assert third.announcement.author != slow, "it had a line for thirty seconds"


@pytest.mark.parametrize("seconds", [1.0, 100.0])
def test_who_spoke_for_itself_lately_has_its_turn_before_what_others_tell_of(seconds: float) -> None:
    firsts = set()
    for seed in range(20):
        fetches = make(max_merge=1, max_fetches=1, seed=seed)
        for author in PEERS:
            fetches.table.note(said(author), author if author in "ab" else "a")
        for author in "ab":
            fetches.contacts.heard_from(author, "working", 0.0)
        (fetch,) = fetches.start(seconds)
        firsts.add(fetch.announcement.author)
    assert firsts == {"a", "b"} if seconds <= fetches.policy.ask_every else firsts > {"a", "b"}


def test_the_author_is_asked_first_then_others_and_a_bad_source_later_again() -> None:
    fetches = make("ab", max_fetches=1)
    for source in "ba":
        fetches.table.note(said("a"), source)
    (first,) = fetches.start(0.0)
    assert first.source == "a"
    fetches.ended(first.announcement)
    fetches.failed(first.announcement, "a", 0.0)
    (second,) = fetches.start(0.0)
    assert second.source == "b"
    fetches.ended(second.announcement)
    fetches.failed(second.announcement, "b", 1.0)
    assert list(fetches.start(1.0)) == []
    assert not fetches.coming(1.0)
    assert fetches.next_deadline(1.0) == fetches.policy.ask_every
    (third,) = fetches.start(fetches.policy.ask_every)
    assert third.source == "a"


def test_slow_sources_give_way_to_who_waits_and_come_back() -> None:
    fetches = make(max_fetches=4)
    for author in "abcd":
        fetches.table.note(said(author), author)
    flying = {f.source: f.announcement for f in fetches.start(0.0)}
    assert not fetches.waiting(30.0), "alone they may be slow"
    fetches.table.note(said("h"), "h")
    assert list(fetches.start(30.0)) == []
    assert fetches.waiting(30.0)
    fetches.ended(flying["a"])
    fetches.gave_way(flying["a"], "a", 30.0)
    assert [f.source for f in fetches.start(30.0)] == ["h"]
    assert not fetches.waiting(30.0), "who gave way does not wait yet"
    fetches.ended(said("h"))
    fetches.table.hold(said("h"))
    assert list(fetches.start(31.0)) == []
    assert fetches.next_deadline(31.0) == 30.0 + BEHIND
    assert [f.source for f in fetches.start(30.0 + BEHIND)] == ["a"]
    assert fetches.hoped_for("a", 31.0), "slow is no failure"


def test_when_the_newest_cannot_be_had_an_older_one_will_do() -> None:
    fetches = make("b")
    fetches.table.note(said("a", 2), "gone")
    fetches.table.note(said("a", 1), "b")
    (fetch,) = fetches.start(0.0)
    assert (fetch.announcement, fetch.source) == (said("a", 1), "b")


@pytest.mark.parametrize("where", ["unknown", "silent"])
def test_nobody_who_does_not_answer_is_fetched_from(where: str) -> None:
    fetches = make("s")
    fetches.contacts.failed("s", "no answer", 0.0)
    fetches.table.note(said("a"), {"unknown": "u", "silent": "s"}[where])
    assert list(fetches.start(0.0)) == []
    assert not fetches.coming(1.0)
    assert fetches.next_deadline(0.0) == NEVER


def test_a_full_disk_pauses_and_resumes() -> None:
    fetches = make("a")
    fetches.table.note(said("a"), "a")
    fetches.paused_until = 10.0
    assert list(fetches.start(9.9)) == []
    assert fetches.next_deadline(9.9) == 10.0
    assert len(list(fetches.start(10.0))) == 1


def test_a_source_that_fails_again_and_again_is_tried_ever_later_and_then_not_hoped_for() -> None:
    fetches, now, gaps = make("ab", max_fetches=1), 0.0, []
    fetches.table.note(said("a"), "a")
    for failures in range(1, 12):
        (fetch,) = fetches.start(now)
        fetches.ended(fetch.announcement)
        fetches.failed(fetch.announcement, "a", now)
        assert fetches.hoped_for("a", now) == (failures < HOPELESS)
        assert list(fetches.start(now)) == []
        gaps.append(fetches.next_deadline(now) - now)
        now += gaps[-1]
        assert fetches.hoped_for("a", now)
    assert gaps[:4] == [5.0, 10.0, 20.0, 40.0]
    assert gaps[-1] == fetches.policy.max_backoff
    fetches.table.note(said("a"), "b")
    assert fetches.hoped_for("a", 0.0)  # another source


def test_failures_of_long_ago_are_forgotten() -> None:
    fetches = make("a")
    fetches.failed(said("a"), "a", 0.0)
    fetches.failed(said("b"), "a", 1000.0)
    assert list(fetches.avoid) == [("b1", "a")]
