"""What is asked and told: every author in exactly one bucket, answers within their caps and worth their bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from braintorrent.protocol.asking import ADDRESSES_TOLD
from braintorrent.protocol.buckets import FULL, Buckets, in_bucket
from braintorrent.protocol.messages import MAX_HOLDS, MAX_TOLD, Announcement, AskMessage
from braintorrent.protocol.version import Version

Said = Callable[..., Announcement]
Make = Callable[..., Any]

authors = st.sets(st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=1, max_size=8), max_size=400)


def filed(names: list[str]) -> Buckets:
    """Buckets that learn of one author after the other, and hold something of each."""
    buckets = Buckets()
    for known, author in enumerate(names, start=1):
        buckets.know(known)
        buckets.add(author, Version(1, known))
    return buckets


@given(authors, st.integers(1, 40))
def test_every_author_is_in_exactly_one_bucket(names: set[str], count: int) -> None:
    buckets = filed(sorted(names))
    found = [author for index in range(count) for author in buckets.inside((index, count))]
    assert sorted(found) == sorted(names)
    assert all(in_bucket(a, (i, count)) for i in range(count) for a in buckets.inside((i, count)))


@given(authors, st.data())
def test_a_removed_author_is_in_none(names: set[str], data: st.DataObject) -> None:
    buckets = filed(sorted(names))
    gone = data.draw(st.sets(st.sampled_from(sorted(names)))) if names else set()
    for author in sorted(gone):
        buckets.remove(author)
    assert sorted(buckets.inside((0, 1))) == sorted(names - gone)


def test_buckets_stay_about_half_full() -> None:
    buckets = filed([f"lab{n:05d}" for n in range(10_000)])
    sizes = [len(list(buckets.inside((index, buckets.count)))) for index in range(buckets.count)]
    assert sum(sizes) == 10_000
    assert max(sizes) < MAX_HOLDS
    assert 10_000 / buckets.count <= FULL


@given(st.integers(-5, 5), st.integers(-5, 0))
def test_a_bucket_that_cannot_be_is_empty(index: int, count: int) -> None:
    assert list(filed(["ann"]).inside((index, count))) == []
    assert list(filed(["ann"]).inside((7, 3))) == []


def test_a_rotating_bucket_covers_everyone(shell: Make, said: Said) -> None:
    s = shell("ab", max_merge=255)
    names = [f"lab{n}" for n in range(1000)]
    for name in names:
        s.machine.table.hold(said(name))
    heard: dict[str, Version] = {}
    for _ in range(s.machine.table.buckets.count):
        s.asks.clear()
        s.machine.ask("a")
        s.drain()
        message = s.asks[0].message
        assert len(message.holds) <= MAX_HOLDS
        heard.update(message.holds)
    assert sorted(heard) == sorted(names)


def test_an_ask_always_says_what_is_held_of_the_one_asked(shell: Make, said: Said) -> None:
    s = shell("ab")
    for n in range(1000):
        s.machine.table.hold(said(f"lab{n}"))
    s.machine.table.hold(said("a", 1, 7))
    for _ in range(20):
        s.machine.ask("a")
    s.drain()
    assert all(ask.message.holds["a"] == Version(1, 7) for ask in s.asks if ask.peer == "a" and ask.message.holds)


def test_told_is_newer_than_held_own_first_and_capped(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.machine.newest = said("me")
    for n in range(100):
        s.machine.table.hold(said(f"lab{n}", 1, 5))
    reply = s.asked_by("b", lab3=Version(1, 5), lab4=Version(1, 4))
    assert len(reply.announcements) == MAX_TOLD
    assert reply.announcements[0] == said("me")
    assert len({a.author for a in reply.announcements}) == MAX_TOLD
    everything = {f"lab{n}": Version(1, 5) for n in range(100)}
    reply = s.asked_by("b", me=Version(1, 1), **{**everything, "lab4": Version(1, 4)})
    assert [a.author for a in reply.announcements] == ["lab4"]
    assert s.asked_by("b", me=Version(1, 1), **everything).announcements == ()


def test_only_what_can_be_served_is_told(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.reply("a", said("b"))
    assert s.asked_by("a").announcements == ()
    s.fetch_all()
    assert s.asked_by("a").announcements == (said("b"),)


def test_a_peer_that_lost_its_disk_is_told_its_own_past(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.machine.table.hold(said("a", 5, 9))
    assert s.asked_by("a").announcements == (said("a", 5, 9),)
    assert s.asked_by("a", said("a", 4, 1)).announcements == (said("a", 5, 9),)
    assert s.asked_by("a", said("a", 5, 9)).announcements == ()


def test_settled_means_that_nothing_of_the_asker_is_lacking(shell: Make, said: Said) -> None:
    s = shell("abc", max_fetches=9)
    assert s.asked_by("a").settled
    assert not s.asked_by("a", said("a")).settled
    s.fetch_all()
    assert s.asked_by("a", said("a")).settled
    assert not s.asked_by("a", said("a"), c=Version(1, 1)).settled
    s.machine.table.refuse(said("c"), "misshapen")
    assert s.asked_by("a", said("a"), c=Version(1, 1)).settled
    assert s.asked_by("a", said("a"), stranger=Version(1, 1)).settled


def test_addresses_told_are_few_and_proven(shell: Make) -> None:
    s = shell("abcdefghijklmnopqrstuvwxyz")
    assert s.asked_by("a").addresses == {}
    for peer in "abcdefghijklmnopqrstuvwxyz":
        s.reply(peer) if peer != "q" else s.silence(peer)
    told: set[str] = set()
    for _ in range(60):
        addresses = s.asked_by("a").addresses
        assert len(addresses) <= ADDRESSES_TOLD
        told |= addresses.keys()
    assert told == set("bcdefghijklmnoprstuvwxyz")


def test_a_stranger_learns_nothing_and_leaves_no_trace(shell: Make, said: Said) -> None:
    s = shell("ab")
    s.machine.table.hold(said("a"))
    for sender in ("stranger", "me"):
        reply = s.feed("received", AskMessage(said(sender), {}), sender)
        assert (reply.announcements, reply.addresses) == ((), {})
        assert sender not in s.machine.contacts.of
        assert sender not in s.machine.table.entries


def test_a_message_of_another_federation_changes_nothing(shell: Make, said: Said) -> None:
    s = shell("ab")
    foreign = SimpleNamespace(**{f: getattr(said("a"), f) for f in Announcement.__slots__ if f != "federation"})
    foreign.federation = "other"
    s.feed("received", AskMessage(foreign, {}), "a")
    assert not s.machine.table.offered
