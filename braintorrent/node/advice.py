"""Advice: what labs say of labs, as this lab has kept it, and what its policy makes of it.

The ledger keeps each notice with its state: own (this lab says so), accepted (heeded, or true here already), waiting
(for a person: `trust --accept`, `--decline`), refused.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from braintorrent.config import Peer
from braintorrent.node.kept import Kept, newest
from braintorrent.node.roster import Roster, alike
from braintorrent.node.trusting import objection
from braintorrent.protocol.notices import MAX_ROTATIONS, Introduction, Notice, Revocation, Rotation
from braintorrent.records import short

MAX_VOUCHED = 16  # labs taken on one member's word; whom it introduces then waits for a person
ROTATION_EVERY = 86400.0  # seconds: a lab's next new key, sooner than this, waits for a person
CHAIN_SECONDS = 600.0  # but what a lab did while this one slept comes at once: keys within this time count as one


def waiting(kept: Collection[Kept], roster: Roster, me: str) -> list[Introduction | Revocation | Rotation]:
    """What a person is asked about, but for what the roster says already."""
    found = (each.notice for each in newest(kept, roster, me) if each.state == "waiting")
    return [n for n in found if isinstance(n, Introduction | Revocation | Rotation) and _open(n, roster)]


def _open(notice: Introduction | Revocation | Rotation, roster: Roster) -> bool:
    match notice:
        case Introduction():
            return roster.heir(notice.peer) not in roster.members
        case Revocation():
            return roster.heir(notice.peer) in roster.members
    return notice.author in roster.members and notice.peer not in roster.revoked


def called(notice: Introduction | Revocation | Rotation, roster: Roster) -> str:
    """What people here call the lab that a notice is about; of an introduced one, what the other calls it.

    A new key goes by its id, or who accepts it might answer a revocation of the same lab.
    """
    return notice.name if isinstance(notice, Introduction) else roster.name(notice.peer)


def advice(notice: Introduction | Revocation | Rotation, roster: Roster, folder: Path) -> dict[str, Any]:
    """A waiting notice, for people and scripts. folder: where to settle it."""
    name, kind = called(notice, roster), type(notice).__name__.lower()
    effect, otherwise = EFFECTS[kind]
    return {
        "kind": kind, "name": name, "id": notice.peer,
        "by": roster.name(notice.author), "why": notice.why if isinstance(notice, Revocation) else "",
        "unix": notice.unix_ms / 1000,
        "settle": f"{effect}: braintorrent trust --accept {name} -C {folder}; {otherwise}: --decline",
    }  # fmt: skip


EFFECTS = {  # of --accept, and of --decline
    "introduction": ("to trust it", "to leave it"), "revocation": ("to trust it no more", "to keep it"),
    "rotation": ("to follow it", "not to"),
}  # fmt: skip


def said(advice: dict[str, Any]) -> str:
    """The same in words."""
    by, name = advice["by"], f"{advice['name']} {short(advice['id'])}"
    why = f": {advice['why']}" if advice["why"] else ""
    what = {
        "introduction": f"{by} introduces {name}", "revocation": f"{by} revoked {name}{why}",
        "rotation": f"{by} says it has a new key, {short(advice['id'])}: another so soon, or others revoked it",
    }  # fmt: skip
    return f"{what[advice['kind']]}; {advice['settle']}"


def question(advice: dict[str, Any]) -> str:
    """What a person is asked before it is done."""
    name, by, why = advice["name"], advice["by"], f": {advice['why'].rstrip('.')}" if advice["why"] else ""
    return {
        "introduction": f"Trust {name}, introduced by {by}?",
        "rotation": f"Follow {by} to its new key, {advice['id']}?",
        "revocation": f"{by} revoked {name}{why}. Trust {name} no more?",
    }[advice["kind"]]  # fmt: skip


def revokers(kept: Collection[Kept], roster: Roster, me: str) -> dict[str, str]:
    """Who on the roster trusts this lab no more -> why."""
    said = (each.notice for each in newest(kept, roster, me))
    return {n.author: n.why or "no reason given" for n in said if isinstance(n, Revocation) and n.peer == me}


# ------------------------------------------------------------- policy


def decide(
    notice: Notice, roster: Roster, me: str, peer: Peer, kept: Collection[Kept], gone: Collection[str] = ()
) -> str:  # fmt: skip
    """What becomes of a notice just heard: "heed", or the state in which it is kept. gone: whom people took off."""
    if notice.author == me:
        return "own"  # from a life that this disk does not remember
    before = next((each.state for each in kept if each.notice.digest == notice.digest), "")
    if before:
        return before  # what a person declined stays declined, though it is told again after a start
    match notice:
        case Introduction():
            return _about_introduction(notice, roster, me, peer, newest(kept, roster, me), gone)
        case Revocation():
            return _about_revocation(notice, roster, me, peer)
        case Rotation():
            return _about_rotation(notice, roster, newest(kept, roster, me))
    return "accepted"


def _about_introduction(
    notice: Introduction, roster: Roster, me: str, peer: Peer, count: list[Kept], gone: Collection[str]
) -> str:  # fmt: skip
    if notice.peer == me or roster.heir(notice.peer) in roster.members:
        return "accepted"
    if notice.peer in roster.revoked or peer.introductions == "refuse":
        return "refused"
    if any(isinstance(each.notice, Rotation) and each.notice.author == notice.peer for each in count):
        return "accepted"  # it goes by a new id
    heir = any(isinstance(each.notice, Rotation) and each.notice.peer == notice.peer for each in count)
    doubt = heir or notice.peer in gone or _warned([notice.peer], count) or _borrowed(notice.name, peer, roster)
    if doubt or objection(roster, notice.peer, notice.name) or peer.introductions == "ask":
        return "waiting"
    here = sum(roster.heir(member.vouched) == notice.author for member in roster.members.values())
    return "waiting" if here >= MAX_VOUCHED else "heed"


def _about_revocation(notice: Revocation, roster: Roster, me: str, peer: Peer) -> str:
    if notice.peer == me or peer.revocations == "refuse":
        return "refused"
    if roster.heir(notice.peer) not in roster.members:
        return "accepted"  # kept as a warning against introductions, and new keys
    return "waiting" if peer.revocations == "ask" else "heed"


def _about_rotation(notice: Rotation, roster: Roster, count: list[Kept]) -> str:
    """Followed, as both keys say so. But a new key wipes no slate clean, and not every day brings one."""
    line = roster.members.get(notice.author)
    if line is None:
        before = (each for each in count if isinstance(each.notice, Rotation) and each.notice.peer == notice.author)
        return "waiting" if any(each.state == "waiting" for each in before) else "accepted"
    if notice.peer in roster.revoked:
        return "accepted"
    now = time.time()
    lately = [unix for unix in line.former.values() if unix > now - ROTATION_EVERY]
    often = lately and (len(lately) >= MAX_ROTATIONS or min(lately) < now - CHAIN_SECONDS)
    return "waiting" if often or _warned([notice.author, notice.peer, *line.former], count) else "heed"


def _warned(peers: Collection[str], count: list[Kept]) -> bool:
    """Whether somebody trusted here revoked one of these ids, and a person did not decline it."""
    return any(
        isinstance(each.notice, Revocation) and each.notice.peer in peers and each.state != "refused" for each in count
    )


def _borrowed(name: str, peer: Peer, roster: Roster) -> bool:
    """Whether a newcomer would go by a name that is this lab's own, or a revoked one's."""
    return alike(name, peer.name) or any(alike(name, line.name) for line in roster.revoked.values())
