"""Contacts: who is asked when, who counts as present, and how many addresses are remembered."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braintorrent.protocol.contacts import MAX_ADDRESSES_EACH, NEVER, RECENT, Contacts
from braintorrent.protocol.policy import Policy


def known(*peers: str, **policy: float) -> Contacts:
    contacts = Contacts(Policy(**policy), Random(3))  # type: ignore[arg-type]
    for peer in peers:
        contacts.sighted(peer, f"{peer}:1", 0.0)
    return contacts


def asked_at(contacts: Contacts, until: float, fails: bool) -> list[float]:
    """When the one contact is asked, each ask ending at once."""
    times, now = [], 0.0
    while now <= until:
        for peer in contacts.due(now):
            times.append(now)
            contacts.failed(peer, "no answer", now) if fails else contacts.succeeded(peer, "working", now)
        now = contacts.next_deadline(now)
    return times


def test_a_peer_is_asked_when_sighted_and_then_about_every_so_often() -> None:
    times = asked_at(known("a", ask_every=5.0), 100.0, fails=False)
    assert times[0] == 0.0
    gaps = [b - a for a, b in pairwise(times)]
    assert all(4.5 <= gap <= 5.5 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.1  # not in step with others


def test_a_dead_peer_is_asked_ever_more_rarely_but_never_given_up() -> None:
    times = asked_at(known("a", ask_every=5.0, max_backoff=300.0), 5000.0, fails=True)
    gaps = [b - a for a, b in pairwise(times)]
    assert all(b > 1.5 * a for a, b in pairwise(gaps[:5]))
    assert all(270 <= gap <= 330 for gap in gaps[7:])
    assert len(times) < 30


def test_a_sign_of_life_ends_the_back_off() -> None:
    contacts = known("a")
    asked_at(contacts, 1000.0, fails=True)
    assert list(contacts.due(1000.0)) == []
    contacts.heard_from("a", "working", 1000.0)
    assert list(contacts.due(1000.0)) == ["a"]


def test_a_new_address_of_a_silent_peer_is_tried_at_once_and_first() -> None:
    contacts = known("a")
    list(contacts.due(0.0))
    contacts.failed("a", "no answer", 0.0)
    contacts.sighted("a", "a:1", 1.0)
    assert list(contacts.due(1.0)) == []
    contacts.sighted("a", "a:2", 1.0)
    assert contacts.of["a"].addresses == ("a:2", "a:1")
    assert list(contacts.due(1.0)) == ["a"]


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=80))
def test_addresses_are_bounded_distinct_and_the_proven_first(events: list[tuple[int, bool, bool]]) -> None:
    contacts = known()
    for port, proven, fails in events:
        contacts.sighted("a", f"a:{port}", 0.0, proven=proven)
        addresses = contacts.of["a"].addresses
        assert len(addresses) == len(set(addresses)) <= MAX_ADDRESSES_EACH
        assert not proven or addresses[0] == f"a:{port}"
        if fails:
            contacts.failed("a", "no answer", 0.0)
        elif proven:
            contacts.succeeded("a", "working", 0.0)


def test_rumours_do_not_push_out_an_address_that_works() -> None:
    contacts = known("a")
    contacts.succeeded("a", "working", 0.0)
    for port in range(100):
        contacts.sighted("a", f"rumour:{port}", 0.0)
    assert contacts.of["a"].addresses[0] == "a:1"
    assert len(contacts.of["a"].addresses) == MAX_ADDRESSES_EACH


def test_rumours_do_not_push_out_the_proven_address_of_a_silent_peer_nor_cut_its_back_off_short() -> None:
    contacts = known()
    contacts.sighted("a", "good:1", 0.0, proven=True)
    assert list(contacts.due(0.0)) == ["a"]
    contacts.failed("a", "no answer", 0.0)
    for port in range(100):
        contacts.sighted("a", f"rumour:{port}", 1.0, gossip=True)
    assert contacts.of["a"].addresses[:2] == ("good:1", "rumour:99")
    assert len(contacts.of["a"].addresses) == MAX_ADDRESSES_EACH
    assert list(contacts.due(1.0)) == []
    contacts.sighted("a", "moved:1", 1.0)
    assert contacts.of["a"].addresses[:2] == ("good:1", "moved:1")
    assert list(contacts.due(1.0)) == ["a"]


def test_rumours_only_ever_push_out_rumours() -> None:
    contacts = known()
    contacts.sighted("a", "roster:1", 0.0)
    contacts.failed("a", "not there yet", 0.0)
    for port in range(100):
        contacts.sighted("a", f"rumour:{port}", 1.0, gossip=True)
    assert contacts.of["a"].addresses[0] == "rumour:99"
    assert "roster:1" in contacts.of["a"].addresses
    contacts.sighted("a", "rumour:99", 1.0)  # it says so itself
    for port in range(MAX_ADDRESSES_EACH):
        contacts.sighted("a", f"hint:{port}", 1.0)
    assert set(contacts.of["a"].addresses).isdisjoint(f"rumour:{port}" for port in range(99))
    before = contacts.of["a"].addresses
    contacts.sighted("a", "rumour:200", 1.0, gossip=True)
    assert contacts.of["a"].addresses == before


def test_presence_is_having_been_heard_lately_and_not_leaving() -> None:
    contacts = known("a", "b", "c", "d")
    for peer, phase in (("a", "working"), ("b", "leaving"), ("c", "final")):
        contacts.heard_from(peer, phase, 10.0)
    assert contacts.present(10.0) == ["a", "c"]
    for _ in range(3):
        contacts.failed("c", "lost", 11.0)
    assert contacts.present(10.0 + contacts.policy.absent_after) == ["a", "c"]
    assert contacts.present(10.1 + contacts.policy.absent_after) == []


def test_with_a_fanout_presence_lasts_as_long_as_a_turn_takes() -> None:
    names = [f"p{n}" for n in range(60)]
    contacts = known(*names, fanout=3)
    contacts.heard_from("p1", "working", 0.0)
    assert contacts.present(10 * contacts.policy.absent_after) == ["p1"]
    assert contacts.present(21 * contacts.policy.absent_after) == []
    for _ in range(3):
        contacts.failed("p1", "no answer", 1.0)
    assert contacts.present(contacts.policy.absent_after) == ["p1"]
    assert contacts.present(2 * contacts.policy.absent_after) == []


@pytest.mark.parametrize("trouble", [0.0, 0.3])
def test_with_a_fanout_asks_do_not_grow_with_peers_arrivals_or_failures(trouble: float) -> None:
    rng = Random(5)

    def asks(peers: int) -> float:
        contacts, now, count = known(fanout=3, ask_every=5.0), 0.0, 0
        while now < 1000.0:
            if len(contacts.of) < peers:
                contacts.sighted(f"p{len(contacts.of)}", "somewhere:1", now)
            for peer in list(contacts.due(now)):
                count += 1
                failed = rng.random() < trouble
                contacts.failed(peer, "lost", now) if failed else contacts.succeeded(peer, "working", now)
            if rng.random() < 0.2:  # and others ask us
                contacts.heard_from(rng.choice(list(contacts.of)), "working", now)
            now = min(now + 1.0, max(contacts.next_deadline(now), now + 0.01))
        return count / (1000.0 / 5.0)

    assert asks(20) < 3.3 * (1 + 2 * trouble)
    assert asks(200) < 3.3 * (1 + 2 * trouble)


def test_a_round_with_nobody_to_ask_is_held_when_somebody_appears() -> None:
    contacts = known(fanout=2)
    assert list(contacts.due(100.0)) == []
    assert contacts.next_deadline(100.0) == NEVER
    contacts.sighted("a", "a:1", 101.0)
    assert list(contacts.due(101.0)) == ["a"]


def test_something_to_say_is_said_to_all_and_after_an_ask_under_way_once_more() -> None:
    contacts = known("a", "b", "c")
    assert sorted(contacts.due(0.0)) == ["a", "b", "c"]
    contacts.succeeded("a", "working", 1.0)
    contacts.failed("b", "no answer", 1.0)
    contacts.ask_all_now(2.0)
    assert list(contacts.due(2.0)) == ["a"]  # b backs off, c is being asked
    contacts.succeeded("c", "working", 3.0)
    assert list(contacts.due(3.0)) == ["c"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["see", "hear", "ok", "bad", "say", "go"])), max_size=60
    )
)
def test_the_schedule_is_what_the_contacts_say(events: list[tuple[str, str]]) -> None:
    """`next_deadline` and `due` agree with a look at every contact."""
    contacts, now = known(), 0.0
    for peer, event in events:
        now += 1.0
        if event == "see":
            contacts.sighted(peer, f"{peer}:{int(now) % 3}", now)
        elif event == "hear":
            contacts.heard_from(peer, "working", now)
        elif event in ("ok", "bad") and peer in contacts.of and contacts.of[peer].asking:
            contacts.succeeded(peer, "leaving", now) if event == "ok" else contacts.failed(peer, "lost", now)
        elif event == "say":
            contacts.ask_all_now(now)
        elif event == "go" and peer in contacts.of:
            contacts.remove(peer)
        askable = {p: c.next_ask for p, c in contacts.of.items() if c.addresses and not c.asking}
        assert contacts.next_deadline(now) == min(askable.values(), default=NEVER)
        assert sorted(contacts.due(now)) == sorted(p for p, when in askable.items() if when <= now)
        assert len(contacts._schedule) <= 64 + 4 * len(contacts.of) + 1


def fail_from(contacts: Contacts, now: float, until: float, *, deadline: float = 0.0) -> list[float]:
    """When asks begin, all of them failing after `deadline` seconds."""
    times: list[float] = []
    while (now := contacts.next_deadline(now)) <= until:
        for peer in list(contacts.due(now)):
            times.append(now)
            contacts.failed(peer, "no answer", now + deadline)
    return times


@pytest.mark.parametrize("deadline", [0.0, 9.0])
def test_who_went_without_a_word_is_looked_for_often_for_a_day_and_who_said_farewell_is_not(deadline: float) -> None:
    often = known("a", ask_every=5.0)
    often.succeeded("a", "working", 0.0)
    gaps = [b - a for a, b in pairwise(fail_from(often, 0.0, 3000.0, deadline=deadline))]
    assert max(gaps) < max(2 * 5.0, deadline + 2.5) + 1e-6
    late = [b - a for a, b in pairwise(fail_from(often, RECENT, RECENT + 3000.0))]
    assert max(late) >= 270.0
    parted = known("a", ask_every=5.0)
    parted.succeeded("a", "leaving", 0.0)
    assert max(b - a for a, b in pairwise(fail_from(parted, 0.0, 3000.0))) >= 270.0


def test_when_one_that_was_missed_is_back_the_others_are_asked_at_once() -> None:
    contacts, later = known("a", "b", "c", "d", ask_every=5.0), 2 * RECENT
    for peer, phase in (("a", "working"), ("b", "working"), ("c", "leaving")):  # d was never heard
        contacts.succeeded(peer, phase, 0.0)
    fail_from(contacts, 0.0, later)
    assert not list(contacts.due(later))
    contacts.heard_from("c", "leaving", later)
    contacts.heard_from("d", "working", later)
    assert list(contacts.due(later)) == ["d"]
    contacts.heard_from("a", "working", later)
    assert list(contacts.due(later)) == ["a", "b"]


def test_with_a_fanout_who_publishes_every_ask_every_holds_no_other_rounds() -> None:
    contacts, rounds = known(*"abcdef", fanout=3, ask_every=5.0), []
    for publish in range(20):
        now = publish * 5.0
        contacts.ask_all_now(now)
        while now < (publish + 1) * 5.0:
            turn = contacts.due(now)
            rounds += [now] if turn else []
            for peer in turn:
                contacts.succeeded(peer, "working", now)
            now = contacts.next_deadline(now)
    assert rounds == [publish * 5.0 for publish in range(20)]


def test_with_a_fanout_nobody_is_looked_for_out_of_turn() -> None:
    contacts = known("a", "b", fanout=1, ask_every=5.0)
    for peer in "ab":
        contacts.succeeded(peer, "working", 0.0)
        for _ in range(10):
            contacts.failed(peer, "no answer", 1.0)
    contacts.heard_from("a", "working", 100.0)
    assert contacts.of["b"].next_ask > 200.0
