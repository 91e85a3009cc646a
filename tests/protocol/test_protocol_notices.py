"""Which notices are held, told and heeded by the machine itself."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from braintorrent.protocol import effects as want
from braintorrent.protocol.entry import MAX_QUARANTINED
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.protocol.notices import (
    MAX_NOTICES_EACH,
    MAX_NOTICES_TOLD,
    Introduction,
    Notices,
    Proof,
    Revocation,
    Rotation,
)


def introduction(author, peer, unix_ms=1, federation="fed"):
    raw = f"{federation} {author} introduces {peer} {unix_ms}".encode()
    return Introduction(federation, author, peer, f"lab-{peer}", (), unix_ms, raw)


def revocation(author, peer, unix_ms=1):
    return Revocation("fed", author, peer, f"lab-{peer}", "", unix_ms, f"{author} revokes {peer} {unix_ms}".encode())


def proof(first, second):
    return Proof(first, second, f"{first.content}{second.content}".encode())


def heard(shell):
    return [effect.notice for effect in shell.others if isinstance(effect, want.Heard)]


def told(shell, peer, *notices):
    ask = next(a for a in shell.asks if a.peer == peer)
    shell.asks.remove(ask)
    shell.feed("asked", peer, TellMessage(notices=notices))


def test_the_newest_of_an_author_about_a_lab_counts_in_any_order():
    first, then = introduction("a", "x", 1), revocation("a", "x", 2)
    one, other = Notices(), Notices()
    assert one.add(first)
    assert one.add(then)
    assert other.add(then)
    assert not other.add(first)
    assert list(one) == list(other) == [then]
    assert one.digest == other.digest != ""


def test_an_author_has_so_many_and_the_newest_stay():
    notices = Notices()
    for n in range(MAX_NOTICES_EACH + 5):
        notices.add(introduction("a", f"x{n}", n))
    notices.add(introduction("b", "x"))
    ages = sorted(n.unix_ms for n in notices if n.author == "a")
    assert ages == list(range(5, MAX_NOTICES_EACH + 5))
    assert not notices.add(introduction("a", "older", 0))
    assert sum(n.author == "a" for n in notices) == MAX_NOTICES_EACH
    assert len(notices.drawn(Random(1))) == MAX_NOTICES_TOLD


def test_a_convict_cannot_push_its_proof_out(said):
    for proofs_first in (True, False):
        notices, convicts = Notices(), proof(said("a", content="one"), said("a", content="two"))
        words = [introduction("a", f"x{n}", n) for n in range(MAX_NOTICES_EACH + 1)]
        for notice in [convicts, *words] if proofs_first else [*words, convicts]:
            notices.add(notice)
        assert convicts in list(notices)
        assert sum(isinstance(n, Introduction) for n in notices) == MAX_NOTICES_EACH


def test_one_proof_for_each_life_and_as_many_as_convict_an_author_of_everything(said):
    def of(life, counter=1):
        said_once, said_twice = (said("a", incarnation=life, counter=counter, content=c) for c in ("one", "two"))
        raw = f"proof {life}.{counter}".encode()
        return Proof(said_once, said_twice, raw)

    one, other = Notices(), Notices()
    for notice in (of(1, 1), of(1, 2)):
        one.add(notice)
    for notice in (of(1, 2), of(1, 1)):
        other.add(notice)
    assert len(list(one)) == 1
    assert one.digest == other.digest
    for life in range(MAX_QUARANTINED + 5):
        one.add(of(life))
    assert len(list(one)) == MAX_QUARANTINED


def test_a_chain_of_keys_is_held_whole_from_either_end_and_one_rotation_leads_to_each(shell):
    ids = ["a", "m", "n", "o"]
    chain = [Rotation("fed", x, y, t, f"{x}{y}".encode()) for t, (x, y) in enumerate(pairwise(ids))]
    s = shell()
    told(s, "a", *reversed(chain))
    assert heard(s) == chain, "who slept hears of them in order"
    s.feed("roster_changed", frozenset(["me", "o"]))
    assert set(s.machine.notices) == set(chain), "and who followed passes all of them on"
    again = shell()
    again.feed("roster_changed", frozenset(["me", "o"]))
    again.machine.noticed(*chain)
    assert set(again.machine.notices) == set(chain)
    for n in range(9):
        again.machine.heard(Rotation("fed", f"made up {n}", "o", 10 + n, b"%d" % n), "o", 0.0)
        again.machine.heard(Rotation("fed", f"before {n}", f"made up {n}", 10 + n, b"-%d" % n), "o", 0.0)
    assert [n.author for n in again.machine.notices] == ["made up 8", "before 8"]


def test_a_notice_is_told_only_where_the_asker_holds_others(shell):
    s = shell()
    s.machine.noticed(introduction("me", "x"))
    answer = s.feed("received", AskMessage(None, {}), "a")
    assert answer.notices == (introduction("me", "x"),)
    same = s.feed("received", AskMessage(None, {}, notices=s.machine.notices.digest), "a")
    assert same.notices == ()
    s.reply("a")
    s.wait(20)
    assert next(ask for ask in s.asks if ask.peer == "a").message.notices == s.machine.notices.digest


def test_what_is_heard_is_heard_once_and_passed_on(shell):
    s = shell()
    told(s, "a", revocation("b", "x"))
    s.wait(20)
    told(s, "b", revocation("b", "x"))
    assert heard(s) == [revocation("b", "x")]
    assert s.feed("received", AskMessage(None, {}), "a").notices == (revocation("b", "x"),)


@pytest.mark.parametrize(
    "notice", [introduction("stranger", "x"), introduction("a", "x", federation="other"), Rotation("fed", "s", "t", 1)]
)
def test_nobody_on_the_roster_answers_for_it(shell, notice):
    s = shell()
    told(s, "a", notice)
    assert heard(s) == []
    assert list(s.machine.notices) == []


def test_whoever_leaves_the_roster_takes_its_notices_along(shell):
    s = shell()
    told(s, "a", revocation("a", "b"), revocation("b", "a"), Rotation("fed", "old", "a", 1, b"r"))
    s.feed("roster_changed", frozenset(["me", "a"]))
    assert {type(n) for n in s.machine.notices} == {Revocation, Rotation}
    assert all("a" in (n.author, n.peer) and n.author != "b" for n in s.machine.notices)
    s.feed("roster_changed", frozenset(["me"]))
    assert s.machine.notices.digest == ""


def test_a_proof_quarantines_and_travels_on(shell, said):
    s = shell()
    convicts = proof(said("b", content="one"), said("b", content="two"))
    s.asked_by("b", said("b", content="one"))
    s.fetch_all()
    assert s.machine.table.entries["b"].held is not None
    told(s, "a", convicts)
    assert [type(e) for e in s.others if not isinstance(e, want.Forget)] == [want.Heard, want.Quarantine]
    entry = s.machine.table.entries["b"]
    assert entry.quarantined == {1}
    assert entry.held is None
    assert s.feed("received", AskMessage(None, {}), "a").notices == (convicts,)
    s.asked_by("b", said("b", counter=2))
    assert not s.fetches
    s.asked_by("b", said("b", incarnation=2))
    assert s.fetches, "another life of it is believed"


def test_what_was_known_before_the_start_quarantines_nobody_anew(shell, said):
    """A person may have lifted the quarantine: the ledger says so, not the proof."""
    s = shell()
    s.machine.noticed(proof(said("b", content="one"), said("b", content="two")))
    s.asked_by("b", said("b", content="one"))
    assert s.fetches


def test_a_revoked_authors_version_is_refused_whoever_relays_it(shell, said):
    s = shell()
    s.asked_by("b", said("b"))
    s.fetch_all()
    s.feed("roster_changed", frozenset(["me", "a"]))
    assert [e.announcement.author for e in s.others if isinstance(e, want.Forget)] == ["b"]
    s.reply("a", said("b", counter=2), said("a"))
    assert [fetch.announcement.author for fetch in s.fetches] == ["a"]
    assert "b" not in {a.author for a in s.asked_by("a").announcements}
