"""New keys of labs: who follows them, when a person is asked, and that nothing said of an old key is lost."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from braintorrent.config import Peer
from braintorrent.network.conduct import Conduct
from braintorrent.node.advice import decide, waiting
from braintorrent.node.finding import carry_over
from braintorrent.node.kept import own_rotations, read_notices
from braintorrent.node.lab import ensure_identity
from braintorrent.node.members import members, pick
from braintorrent.node.reverting import peers_called
from braintorrent.node.roster import Member, Roster
from braintorrent.node.rotating import rotate
from braintorrent.node.trusting import heed, revoke, trust
from braintorrent.protocol.notices import Introduction, Revocation
from braintorrent.protocol.table import Table
from braintorrent.records import Identity
from braintorrent.records.notice import rotation, sign_notice
from braintorrent.storage import Ledger, StatePaths

FED = "testing-node"
A, M, N, P, Q = (Identity.create() for _ in range(5))


class Desk:
    """A lab that trusts lab-a (key A) and lab-m (key M), and hears notices."""

    def __init__(self, folder):
        self.folder, self.paths, self.me = folder, StatePaths(folder), ensure_identity(folder)
        trust(self.paths, self.me, A.id, Member(name="lab-a"))
        trust(self.paths, self.me, M.id, Member(name="lab-m"))

    @property
    def roster(self):
        return Roster(self.paths.roster)

    @property
    def kept(self):
        with Ledger(self.paths.ledger, read_only=True) as ledger:
            return read_notices(ledger)

    @property
    def waiting(self):
        return [type(n).__name__ for n in waiting(self.kept, self.roster, self.me.id)]

    def hear(self, notice, **knobs):
        state = decide(notice, self.roster, self.me.id, Peer(name="lab-x", **knobs), self.kept)
        if state == "heed":
            heed(self.paths, self.me, notice)
        else:
            with Ledger(self.paths.ledger, identity=self.me) as ledger:
                ledger.keep_notice(notice.raw, state)
        return state


@pytest.fixture
def desk(folders):
    return Desk(*folders("lab-x"))


def revoked(peer, by=A, unix_ms=1000):
    return sign_notice(by, Revocation(FED, by.id, peer.id, "lab-m", "spoils", unix_ms))


def test_a_revocation_of_an_old_key_finds_its_heir(desk):
    assert desk.hear(rotation(M, N, FED, 1)) == "heed"
    assert desk.roster.heir(M.id) == N.id
    assert desk.hear(revoked(M), revocations="ask") == "waiting"
    assert desk.waiting == ["Revocation"]
    assert pick(desk.folder, "lab-m")[0].peer == M.id
    assert desk.hear(revoked(M, unix_ms=1001), revocations="accept") == "heed"
    assert desk.roster.ids == {A.id}
    assert desk.roster.revoked.keys() == {M.id, N.id}
    assert desk.waiting == []


@pytest.mark.parametrize("policy", ["ask", "accept"])
@pytest.mark.parametrize("of", [M, N])
def test_whoever_is_revoked_somewhere_is_not_followed_to_a_new_key(desk, policy, of):
    desk.hear(revoked(of), revocations=policy if of is N else "ask")
    assert desk.hear(rotation(M, N, FED, 2)) == "waiting"
    assert N.id not in desk.roster.ids
    assert "Rotation" in desk.waiting
    introduced = sign_notice(A, Introduction(FED, A.id, N.id, "lab-new", (), 3))
    assert desk.hear(introduced, introductions="accept") == "waiting", "nor does it come in by another door"
    found = pick(desk.folder, N.id)
    heed(desk.paths, desk.me, found[0])  # a person decides
    assert desk.roster.ids == {A.id, N.id}


def test_a_revocation_that_was_declined_does_not_stand_in_the_way(desk):
    assert desk.hear(revoked(M), revocations="refuse") == "refused"
    assert desk.hear(rotation(M, N, FED, 2)) == "heed"


def test_what_a_person_declined_stays_declined_when_it_is_told_again(desk):
    desk.hear(revoked(M))
    doubtful = rotation(M, N, FED, 2)
    assert desk.hear(doubtful) == "waiting"
    with Ledger(desk.paths.ledger, identity=desk.me) as ledger:
        for each in desk.kept:
            ledger.keep_notice(each.notice.raw, "refused")
    assert desk.hear(doubtful) == "refused"
    assert desk.roster.ids == {A.id, M.id}


def test_to_accept_a_revocation_by_name_is_not_to_follow_a_new_key(desk):
    desk.hear(revoked(M))
    desk.hear(rotation(M, N, FED, 2000))
    assert [type(n) for n in pick(desk.folder, "lab-m")] == [Revocation]


def test_revoking_a_lab_revokes_what_it_did_under_former_keys(desk):
    desk.hear(rotation(M, N, FED, 1))
    assert peers_called(desk.roster, "lab-m") == {M.id, N.id}
    revoke(desk.paths, desk.me, FED, "lab-m", "late")
    assert desk.roster.revoked.keys() == peers_called(desk.roster, "lab-m") == {M.id, N.id}
    assert desk.roster.name(M.id) == "lab-m"
    assert [r["id"] for r in members(desk.folder)["revoked"]] == [N.id]
    said = {each.notice.peer for each in desk.kept if each.state == "own"}
    assert said == {M.id, N.id}, "whoever slept through the rotation knows no other id"
    trust(desk.paths, desk.me, N.id, Member(name="lab-m"), replace=True)
    assert desk.roster.revoked == {}
    assert desk.roster.members[N.id].former.keys() == {M.id}


def test_one_new_key_a_day_is_followed_and_a_chain_shown_at_once_is_one(desk):
    assert desk.hear(rotation(M, N, FED, 1)) == "heed"
    assert desk.hear(rotation(N, P, FED, 2)) == "heed", "what it did while this lab slept"
    earlier = dict.fromkeys(desk.roster.members[P.id].former, time.time() - 3600)
    again = Member(name="lab-m", addresses=("10.0.0.1:1",), former=earlier)
    trust(desk.paths, desk.me, P.id, again)
    assert desk.hear(rotation(P, Q, FED, 3)) == "waiting"
    earlier = dict.fromkeys(earlier, time.time() - 90000)
    trust(desk.paths, desk.me, P.id, Member(name="lab-m", former=earlier))
    assert desk.hear(rotation(P, Q, FED, 4)) == "heed"
    assert desk.roster.members[Q.id].former.keys() == {M.id, N.id, P.id}


def test_no_more_than_four_new_keys_at_once_are_followed(desk):
    keys = [M, *(Identity.create() for _ in range(5))]
    states = [desk.hear(rotation(a, b, FED, n)) for n, (a, b) in enumerate(pairwise(keys))]
    assert states == ["heed"] * 4 + ["waiting"]


def test_what_is_held_against_a_lab_is_held_against_its_heir(desk):
    desk.hear(rotation(M, N, FED, 1))
    table, conduct = Table(), Conduct()
    table.quarantine(M.id, 7)
    for _ in range(9):
        conduct.offend(M.id, "flood: asks")
    carry_over(desk.roster, table, conduct)
    assert table.entries[N.id].quarantined == {7}
    assert conduct.banned(N.id)
    assert conduct.faults(N.id) == {"flood": 9}


async def test_a_lab_that_changed_its_key_twice_is_found_by_those_who_slept(folders, run, until):
    a, b = folders("lab-a", "lab-b")
    old, _ = rotate(a)
    _, new = rotate(a)
    first, second = await run(a, b)
    await until(lambda: new in second.lab.roster.ids)
    assert second.lab.roster.members[new].name == "lab-a"
    assert second.lab.roster.heir(old) == new
    await asyncio.sleep(0.6)  # what is outdated is dropped every now and then
    assert len(own_rotations(first.context.ledger, new)) == 2
    assert len(list(second.context.machine.notices)) == 2, "and passed on"
