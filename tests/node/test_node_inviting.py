"""Invites in a lab's own state: who gets in by a code, who does not, and what a crash in between leaves."""

import asyncio
import json
import subprocess
import sys
import time

import pytest

from braintorrent.errors import BadMessage, ConfigError, FormatError, Refused
from braintorrent.network.answering import Declined
from braintorrent.network.joining import JoinRequest, decode_join, decode_welcome, encode_join
from braintorrent.node import inviting
from braintorrent.node.inviting import admit, cancel, invite, invites, welcome
from braintorrent.node.members import members
from braintorrent.node.node import Node
from braintorrent.node.roster import Member, Roster
from braintorrent.node.trusting import revoke, trust, untrust
from braintorrent.records import Identity, Invite, decode_invite
from braintorrent.records.invite import new_secret
from braintorrent.records.notice import open_notice
from braintorrent.storage import Ledger

NOW = time.time()


@pytest.fixture
def lab(labs):
    """lab-a, which knows nobody yet, at an address that codes can name."""
    (lab,) = labs("lab-a", listen="127.0.0.1:47100")
    yield lab
    lab.state.close()


@pytest.fixture
def code(lab):
    return decode_invite(invite(lab.folder, "lab-c", 1.0, NOW))


def invite_beside(lab) -> str:
    """A code made by the command line beside a running node, whose port was chosen at its start."""
    command = [sys.executable, "-m", "braintorrent", "invite", "lab-c", "-C", str(lab.folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def ask(code: Invite, identity: Identity, step: str = "join", name: str = "itself") -> JoinRequest:
    return decode_join(encode_join(identity, code, step, name, ("192.0.2.3:47100",)))


def test_a_code_says_where_this_lab_is_and_the_file_holds_no_secret(lab, code):
    assert (code.peer, code.federation, code.name) == (lab.me, "testing-node", "lab-c")
    assert code.addresses == ("127.0.0.1:47100",)
    file = lab.state.invites
    assert file.stat().st_mode & 0o777 == 0o600
    assert code.secret.hex() not in file.read_text()
    assert code.key.public_key.hex() not in file.read_text()
    assert [given.state(NOW) for given in invites(lab.state)] == ["open"]


def test_looking_uses_nothing_up(lab, code):
    for _ in range(3):
        admit(lab, ask(code, Identity.create(), "look"), NOW)
    assert Roster(lab.state.roster).ids == frozenset()
    assert [given.state(NOW) for given in invites(lab.state)] == ["open"]


def test_who_joins_is_trusted_under_the_name_the_inviter_chose_and_introduced(lab, code):
    joiner = Identity.create()
    admit(lab, ask(code, joiner, name="another-name"), NOW)
    assert Roster(lab.state.roster).members[joiner.id].same(Member(name="lab-c", addresses=("192.0.2.3:47100",)))
    (shown,) = members(lab.folder)["members"]
    assert (shown["by_code"], shown["vouched"]) == (True, None)
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        (notice,) = [open_notice(raw) for raw, state in ledger.notices() if state == "own"]
        assert (notice.author, notice.peer, notice.name) == (lab.me, joiner.id, "lab-c")
        assert [e.body["action"] for e in ledger.chain() if e.kind == "roster"] == ["trusted"]


def test_the_same_key_is_answered_again_and_any_other_finds_the_code_used(lab, code):
    joiner = Identity.create()
    for _ in range(2):
        admit(lab, ask(code, joiner), NOW)
    admit(lab, ask(code, joiner), NOW + 7200)  # its answer was lost, and it comes back late
    for step in ("look", "join"):
        with pytest.raises(Refused, match="by another key") as caught:
            admit(lab, ask(code, Identity.create(), step), NOW)
        assert caught.value.reason == "used"
    assert Roster(lab.state.roster).ids == {joiner.id}


@pytest.mark.parametrize("step", ["look", "join"])
def test_an_expired_a_guessed_and_a_cancelled_code_let_nobody_in(lab, code, step):
    guess = Invite(code.peer, code.federation, bytes(16), code.expires_unix, code.addresses, "lab-c")
    for wrong, now, reason in ((code, NOW + 3601, "expired"), (guess, NOW, "unknown")):
        with pytest.raises(Refused) as caught:
            admit(lab, ask(wrong, Identity.create(), step), now)
        assert caught.value.reason == reason
    assert cancel(lab.state, "lab-c", NOW)
    with pytest.raises(Refused, match="cancelled") as caught:
        admit(lab, ask(code, Identity.create(), step), NOW)
    assert caught.value.reason == "unknown"
    with pytest.raises(ConfigError, match="no open invite for lab-c"):
        cancel(lab.state, "lab-c", NOW)
    assert Roster(lab.state.roster).ids == frozenset()


def test_a_code_cancelled_too_late_was_of_no_use_already(lab, code):
    assert code.name == "lab-c"
    assert not cancel(lab.state, "lab-c", NOW + 3601)


def test_a_request_for_another_lab_or_federation_or_from_this_one_is_refused(lab, code):
    for field, value in (("peer", Identity.create().id), ("federation", "another-one")):
        other = Invite(**{**{n: getattr(code, n) for n in Invite.__slots__}, field: value})
        with pytest.raises(Refused, match="another lab's"):
            admit(lab, ask(other, Identity.create()), NOW)
    with pytest.raises(Refused):
        admit(lab, ask(code, lab.identity), NOW)


def test_a_crash_after_the_code_was_bound_is_mended_by_the_same_key_only(lab, code, monkeypatch):
    joiner = Identity.create()

    def crash(*_, **__):
        raise KeyboardInterrupt

    for place in ("trust", "introduce"):
        with monkeypatch.context() as broken:
            broken.setattr(inviting, place, crash)
            with pytest.raises(KeyboardInterrupt):
                admit(lab, ask(code, joiner), NOW)
        with pytest.raises(Refused, match="by another key"):
            admit(lab, ask(code, Identity.create()), NOW)
    admit(lab, ask(code, joiner), NOW)
    assert Roster(lab.state.roster).ids == {joiner.id}
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        assert len(ledger.notices()) == 1


def test_a_lab_taken_off_the_roster_does_not_come_back_by_its_code(lab, code):
    joiner = Identity.create()
    admit(lab, ask(code, joiner), NOW)
    untrust(lab.state, lab.identity, "lab-c")
    with pytest.raises(Refused, match="no longer trusted") as caught:
        admit(lab, ask(code, joiner), NOW)
    assert caught.value.reason == "used"
    assert Roster(lab.state.roster).ids == frozenset()


@pytest.mark.parametrize("off", [untrust, lambda paths, me, name: revoke(paths, me, "testing-node", name, "")])
def test_nor_by_a_code_that_a_crash_left_unsettled(lab, code, monkeypatch, off):
    joiner = Identity.create()

    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(inviting, "introduce", crash)
        with pytest.raises(KeyboardInterrupt):
            admit(lab, ask(code, joiner), NOW)
    off(lab.state, lab.identity, "lab-c")
    for step in ("look", "join"):
        with pytest.raises(Refused):
            admit(lab, ask(code, joiner, step), NOW)
    assert Roster(lab.state.roster).ids == frozenset()
    again = decode_invite(invite(lab.folder, "lab-c", 1.0, time.time() + 1))
    if off is untrust:
        admit(lab, ask(again, joiner), NOW)  # a new code is a person's new word
        assert Roster(lab.state.roster).ids == {joiner.id}


def test_a_revoked_lab_cannot_use_a_code_of_another(lab, code):
    joiner = Identity.create()
    trust(lab.state, lab.identity, joiner.id, Member(name="lab-x"))
    revoke(lab.state, lab.identity, lab.federation.id, "lab-x", "sent rubbish")
    with pytest.raises(Refused):
        admit(lab, ask(code, joiner), NOW)
    assert joiner.id not in Roster(lab.state.roster).ids
    admit(lab, ask(code, other := Identity.create()), NOW)  # the code is still good
    assert Roster(lab.state.roster).ids == {other.id}


def test_a_name_that_is_taken_gets_no_code(lab, code):
    with pytest.raises(ConfigError, match="has an open invite"):
        invite(lab.folder, "lab-c", 1.0, NOW)
    trust(lab.state, lab.identity, Identity.create().id, Member(name="lab-d"))
    with pytest.raises(ConfigError, match="lab-d is trusted here already"):
        invite(lab.folder, "lab-d", 1.0, NOW)
    with pytest.raises(ConfigError, match="not a name"):
        invite(lab.folder, "two words", 1.0, NOW)
    again = decode_invite(invite(lab.folder, "lab-c", 1.0, NOW + 3601), NOW + 3601)  # the first has expired
    assert again.secret != code.secret


def test_a_lab_whose_port_is_chosen_at_the_start_cannot_be_named_before(folders):
    (folder,) = folders("lab-a")
    with pytest.raises(ConfigError, match="fixed port, or start the node first"):
        invite(folder, "lab-c", 1.0, NOW)


def test_a_bundle_is_not_handed_on_by_a_code(folders):
    (folder,) = folders("lab-a", task={"kind": "bundle", "bundle": "b"}, listen="127.0.0.1:47100")
    with pytest.raises(ConfigError, match="a bundle is code"):
        invite(folder, "lab-c", 1.0, NOW)


def test_the_welcome_tells_the_federation_this_node_runs_by_and_who_is_in(lab, code):
    friend, joiner = Identity.create(), Identity.create()
    trust(lab.state, lab.identity, friend.id, Member(name="lab-b", addresses=("192.0.2.2:1",)))
    lab.federation_file.write_text("nonsense, edited since")
    admit(lab, ask(code, joiner), NOW)
    said = decode_welcome(inviting.encode_welcome(welcome(lab, joiner.id, NOW)))
    assert said.members == ((friend.id, "lab-b", ("192.0.2.2:1",)),)
    assert 'id = "testing-node"' in said.federation
    assert (said.name, said.start, said.clock_ms) == ("lab-a", lab.start, int(NOW * 1000))


def test_a_damaged_list_of_invites_is_named(lab, code):
    file = lab.state.invites
    for damage in ("{", json.dumps({"format": 2, "invites": {}}), json.dumps({"format": 1, "invites": {"x": {}}})):
        file.write_text(damage)
        with pytest.raises(FormatError, match=r"invites\.json"):
            invites(lab.state)


async def test_guesses_run_dry_and_a_right_code_still_gets_in(labs):
    (lab,) = labs("lab-a")
    async with Node(lab) as node:
        code, reasons = decode_invite(await asyncio.to_thread(invite_beside, lab)), []
        for _ in range(15):
            guess = Invite(code.peer, code.federation, new_secret(), 1, (), "lab-c")
            with pytest.raises((Refused, Declined)) as caught:
                await node.serving.join(encode_join(Identity.create(), guess, "join", "x", ()))
            reasons.append(caught.value.reason)
        assert reasons == ["unknown"] * 10 + ["busy"] * 5
        with pytest.raises(Declined):
            await node.serving.join(b"\x93" * 100)
        assert node.context.notes["joining"] == "failed attempts to join by a code: 16, the last: bad-message"
        joiner = Identity.create()
        await node.serving.join(encode_join(joiner, code, "join", "lab-c", ()))
        assert node.serving.trusted(joiner.id), "at once, not when the roster is looked at again"
        await asyncio.sleep(1.1)
        with pytest.raises(BadMessage):
            await node.serving.join(b"no message")


@pytest.mark.parametrize("place", range(0, 300, 7))
def test_a_request_with_one_byte_changed_is_nobodys(code, place):
    raw = bytearray(encode_join(Identity.create(), code, "join", "lab-c", ("192.0.2.3:47100",)))
    raw[place % len(raw)] ^= 1
    with pytest.raises(BadMessage):
        decode_join(bytes(raw))
