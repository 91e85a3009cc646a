"""Trust given, taken back, passed on, and a lab's new key: the roster, and what the ledger says of it."""

from __future__ import annotations

import json
import sqlite3

import pytest

from braintorrent.config import Peer
from braintorrent.errors import ConfigError
from braintorrent.node import rotating
from braintorrent.node.advice import MAX_VOUCHED, decide
from braintorrent.node.auditing import audit
from braintorrent.node.kept import Kept, read_notices, taken_off
from braintorrent.node.lab import Lab, ensure_identity
from braintorrent.node.roster import Member, Revoked, Roster
from braintorrent.node.trusting import heed, introduce, revoke, trust, untrust
from braintorrent.protocol.notices import Introduction, Revocation, Rotation
from braintorrent.records import Identity, digest
from braintorrent.records.notice import open_notice, rotation, sign_notice
from braintorrent.storage import Ledger, StatePaths

FED = "testing-node"
B, C, D = (Identity.create() for _ in range(3))


@pytest.fixture
def lab(folders):
    """(folder, paths, identity) of a lab that trusts lab-b."""
    (folder,) = folders("lab-a")
    paths, me = StatePaths(folder), ensure_identity(folder)
    trust(paths, me, B.id, Member(name="lab-b"))
    return folder, paths, me


def said(paths, kind="roster"):
    with Ledger(paths.ledger, read_only=True) as ledger:
        return [entry.body for entry in ledger.chain() if entry.kind == kind]


def whole(folder):
    return [finding.said for finding in audit(folder) if not finding.whole]


def test_each_change_is_an_entry_with_the_digest_of_the_roster_it_leads_to(lab):
    folder, paths, me = lab
    trust(paths, me, C.id, Member(name="lab-c", vouched=B.id))
    assert digest(paths.roster.read_bytes()) == said(paths)[-1]["roster"]
    assert untrust(paths, me, "lab-c") == {C.id}
    assert revoke(paths, me, FED, "lab-b", "moved on") == {B.id}
    told = [(body["action"], body["name"], body["why"]) for body in said(paths)]
    assert told == [
        ("trusted", "lab-b", ""), ("trusted", "lab-c", "introduced by lab-b"), ("untrusted", "lab-c", ""),
        ("revoked", "lab-b", "moved on"),
    ]  # fmt: skip
    assert digest(paths.roster.read_bytes()) == said(paths)[-1]["roster"]
    assert whole(folder) == []


def test_the_same_line_twice_changes_nothing(lab):
    _, paths, me = lab
    before = paths.roster.read_bytes()
    trust(paths, me, B.id, Member(name="lab-b"))
    assert paths.roster.read_bytes() == before
    assert len(said(paths)) == 1
    trust(paths, me, B.id, Member(name="lab-b", addresses=("10.0.0.1:1",)))
    since = Roster(paths.roster).members[B.id].since
    assert since == json.loads(before)["members"][B.id]["since"], "new addresses are no new trust"


def test_who_was_revoked_comes_back_only_on_purpose(lab):
    _, paths, me = lab
    revoke(paths, me, FED, "lab-b", "key lost")
    assert Roster(paths.roster).revoked[B.id].why == "key lost"
    with pytest.raises(ConfigError, match=r"lab-b was revoked here on .*: key lost; .*--replace"):
        trust(paths, me, B.id, Member(name="lab-b"))
    heard = sign_notice(C, Introduction(FED, C.id, B.id, "lab-b", (), 1))
    with pytest.raises(ConfigError, match="was revoked here"):
        heed(paths, me, heard)
    trust(paths, me, B.id, Member(name="lab-b"), replace=True)
    roster = Roster(paths.roster)
    assert (roster.ids, roster.revoked) == ({B.id}, {})


def test_nobody_called_so_and_a_reason_too_long(lab):
    _, paths, me = lab
    for taking_back in (lambda: untrust(paths, me, "lab-x"), lambda: revoke(paths, me, FED, "lab-x", "why")):
        with pytest.raises(ConfigError, match="nobody here is called lab-x; there are: lab-b"):
            taking_back()
    for why in ("w" * 121, "two\nlines"):
        with pytest.raises(ConfigError, match="one line of at most 120"):
            revoke(paths, me, FED, "lab-b", why)
    assert Roster(paths.roster).ids == {B.id}


def test_what_a_lab_says_last_about_another_is_the_newest(lab):
    _, paths, me = lab
    first = introduce(paths, me, FED, C.id, Member(name="lab-c", addresses=tuple(f"10.0.0.{n}:1" for n in range(8))))
    assert len(first.addresses) == 4
    revoke(paths, me, FED, C.id, "a mistake")
    again = introduce(paths, me, FED, C.id, Member(name="lab-c"))
    with Ledger(paths.ledger, read_only=True) as ledger:
        kept = read_notices(ledger)
    assert {each.state for each in kept} == {"own"}
    assert [each.notice.unix_ms for each in kept] == sorted(each.notice.unix_ms for each in kept)
    assert again.unix_ms == max(each.notice.unix_ms for each in kept)
    assert Roster(paths.roster).revoked[C.id] == Revoked(
        name=C.id[:7], why="a mistake", unix=Roster(paths.roster).revoked[C.id].unix, by=""
    )


def test_a_roster_of_an_older_release_is_read_and_written_anew(folders):
    (folder,) = folders("lab-a")
    paths, me = StatePaths(folder), ensure_identity(folder)
    old = {"format": 1, "members": {B.id: {"name": "lab-b", "addresses": ["10.0.0.1:1"]}}}
    paths.roster.write_text(json.dumps(old))
    assert Roster(paths.roster).members == {B.id: Member(name="lab-b", addresses=("10.0.0.1:1",))}
    trust(paths, me, C.id, Member(name="lab-c"))
    assert json.loads(paths.roster.read_text())["format"] == 2
    assert Roster(paths.roster).ids == {B.id, C.id}


# ------------------------------------------------------------- advice


def introduced(by=B, peer=C, name="lab-c"):
    return sign_notice(by, Introduction(FED, by.id, peer.id, name, ("10.0.0.1:1", "nonsense", "10.0.0.1:0"), 5))


def revoked(by=B, peer=C):
    return sign_notice(by, Revocation(FED, by.id, peer.id, "lab-c", "spoils", 6))


def verdict(lab, notice, kept=(), **knobs):
    _, paths, me = lab
    return decide(notice, Roster(paths.roster), me.id, Peer(name="lab-a", **knobs), kept)


@pytest.mark.parametrize(("knob", "state"), [("accept", "heed"), ("ask", "waiting"), ("refuse", "refused")])
def test_policy_decides_about_advice(lab, knob, state):
    _, paths, me = lab
    assert verdict(lab, introduced(), introductions=knob) == state
    trust(paths, me, C.id, Member(name="lab-c"))
    assert verdict(lab, introduced(), introductions=knob) == "accepted", "it is trusted already"
    assert verdict(lab, revoked(), revocations=knob) == state


def test_advice_waits_for_a_person_where_something_speaks_against_it(lab):
    _, paths, me = lab
    for doubtful in (introduced(name="lab-b"), introduced(name="lab-a")):
        assert verdict(lab, doubtful, introductions="accept") == "waiting", "that name is another's"
    trust(paths, me, D.id, Member(name="lab-d"))
    warning = [Kept(revoked(by=D), "accepted")]
    assert verdict(lab, introduced(), warning, introductions="accept") == "waiting"
    assert verdict(lab, introduced(), [Kept(revoked(by=D), "refused")], introductions="accept") == "heed"
    untrust(paths, me, "lab-d")
    assert verdict(lab, introduced(), warning, introductions="accept") == "heed", "who says so is a stranger"
    revoke(paths, me, FED, C.id, "")
    assert verdict(lab, introduced(), introductions="accept") == "refused"


def test_whom_people_took_off_the_roster_comes_back_by_people(lab):
    _, paths, me = lab
    trust(paths, me, C.id, Member(name="lab-c", vouched=B.id))
    untrust(paths, me, "lab-c")
    with Ledger(paths.ledger, read_only=True) as ledger:
        gone = taken_off(ledger)
    assert gone.keys() == {C.id}
    roster, peer = Roster(paths.roster), Peer(name="lab-a", introductions="accept")
    assert decide(introduced(), roster, me.id, peer, (), gone) == "waiting"
    assert decide(introduced(peer=D, name="lab-d"), roster, me.id, peer, (), gone) == "heed"
    trust(paths, me, C.id, Member(name="lab-c"))
    with Ledger(paths.ledger, read_only=True) as ledger:
        assert taken_off(ledger) == {}


def test_one_members_word_brings_so_many_labs_and_goes_with_it(lab):
    _, paths, me = lab
    for n in range(MAX_VOUCHED):
        newcomer = introduced(peer=Identity.create(), name=f"new{n}")
        assert verdict(lab, newcomer, introductions="accept") == "heed"
        heed(paths, me, newcomer)
    assert verdict(lab, introduced(), introductions="accept") == "waiting"
    (first, *_) = sorted(Roster(paths.roster).vouched([B.id]))
    trust(paths, me, D.id, Member(name="lab-d", vouched=first))
    trust(paths, me, C.id, Member(name="lab-c"))
    assert len(Roster(paths.roster).vouched([B.id])) == MAX_VOUCHED + 1, "and those introduced by these"
    revoke(paths, me, FED, "lab-b", "sybils", vouched=True)
    assert Roster(paths.roster).ids == {C.id}


@pytest.mark.parametrize("name", ["LAB-B", "lab_b", "labb", "lab.b"])
def test_a_name_that_people_would_take_for_another_is_that_other(lab, name):
    _, paths, me = lab
    with pytest.raises(ConfigError, match=f"{name}, or lab-b as people may read it, is {B.id}"):
        trust(paths, me, C.id, Member(name=name))
    assert verdict(lab, introduced(name=name), introductions="accept") == "waiting"
    assert verdict(lab, introduced(name="Lab_A"), introductions="accept") == "waiting", "this lab's own"
    revoke(paths, me, FED, "lab-b", "")
    trust(paths, me, D.id, Member(name="lab-d"))
    assert verdict(lab, introduced(by=D, name=name), introductions="accept") == "waiting", "a revoked one's"


def test_a_damaged_notice_prevents_nothing_but_a_sound_audit(lab):
    folder, paths, me = lab
    trust(paths, me, C.id, Member(name="lab-c"))
    revoke(paths, me, FED, "lab-b", "")
    with sqlite3.connect(paths.ledger) as sql:
        raw = bytearray(sql.execute("SELECT raw FROM notice").fetchone()[0])
        raw[-1] ^= 1
        sql.execute("UPDATE notice SET raw = ?", (bytes(raw),))
    sql.close()
    assert revoke(paths, me, FED, "lab-c", "") == {C.id}
    _, new = rotating.rotate(folder)
    assert ensure_identity(folder).id == new
    assert whole(folder) != []


def test_a_lab_does_not_revoke_itself_on_advice(lab):
    assert verdict(lab, revoked(peer=lab[2]), revocations="accept") == "refused"


def test_advice_heeded_is_on_the_roster_with_its_source(lab):
    folder, paths, me = lab
    heed(paths, me, introduced(), name="the-third")
    member = Roster(paths.roster).members[C.id]
    assert (member.name, member.vouched, member.addresses) == ("the-third", B.id, ("10.0.0.1:1",))
    heed(paths, me, revoked())
    roster = Roster(paths.roster)
    assert roster.ids == {B.id}
    assert (roster.revoked[C.id].by, roster.revoked[C.id].why, roster.name(C.id)) == (B.id, "spoils", "the-third")
    with Ledger(paths.ledger, read_only=True) as ledger:
        assert [each.state for each in read_notices(ledger)] == ["accepted", "accepted"]
    assert whole(folder) == []


# ------------------------------------------------------------- keys


def test_another_labs_new_key_takes_the_place_of_the_old(lab):
    folder, paths, me = lab
    before = Roster(paths.roster).members[B.id]
    notice = rotation(B, D, FED, 7)
    assert verdict(lab, notice) == "heed"
    heed(paths, me, notice)
    (line,) = Roster(paths.roster).members.values()
    assert Roster(paths.roster).ids == {D.id}
    assert line == before.model_copy(update={"former": line.former})
    assert line.former.keys() == {B.id}
    assert verdict(lab, introduced(by=D, peer=B, name="lab-x"), [Kept(notice, "accepted")]) == "accepted"
    assert whole(folder) == []


def test_a_revoked_lab_does_not_come_back_by_a_new_key(lab):
    _, paths, me = lab
    revoke(paths, me, FED, "lab-b", "")
    assert verdict(lab, rotation(B, D, FED, 7)) == "accepted"
    trust(paths, me, C.id, Member(name="lab-c"))
    assert verdict(lab, rotation(C, B, FED, 7)) == "accepted", "nor under the id of another"
    heed(paths, me, rotation(C, B, FED, 7))
    assert Roster(paths.roster).ids == {C.id}


@pytest.mark.parametrize("cut", ["", "_hand_over", "_go_on"])
def test_a_rotation_goes_through_or_is_done_again_at_the_next_start(lab, monkeypatch, cut):
    folder, paths, old = lab
    revoke(paths, old, FED, C.id, "gone")
    if cut:
        done, stopped = getattr(rotating, cut), RuntimeError("killed")

        def dies(*arguments):
            done(*arguments)
            raise stopped

        monkeypatch.setattr(rotating, cut, dies)
        with pytest.raises(RuntimeError, match="killed"):
            rotating.rotate(folder)
        monkeypatch.undo()
        assert ensure_identity(folder).id == old.id
        lab = Lab.open(folder)
        lab.state.close()
        new = lab.me
    else:
        was, new = rotating.rotate(folder)
        assert was == old.id
    assert ensure_identity(folder).id == new != old.id
    assert Identity.load(paths.path / "key.old").id == old.id
    assert not rotating.unfinished(paths)
    with Ledger(paths.ledger, read_only=True) as ledger:
        notices = [open_notice(raw) for raw, _ in ledger.notices()]
    assert [(n.author, n.peer) for n in notices if isinstance(n, Rotation)] == [(old.id, new)]
    assert {n.author for n in notices if isinstance(n, Revocation)} == {old.id, new}
    trust(paths, ensure_identity(folder), D.id, Member(name="lab-d"))
    assert whole(folder) == []
