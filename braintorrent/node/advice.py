"""Advice: what labs say of labs, as this lab has kept it, and what its policy makes of it.

The ledger keeps each notice with its state: own (this lab says so), accepted (heeded, or true here already), waiting
(for a person: `trust --accept`, `--decline`), refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from braintorrent.config import Peer
from braintorrent.errors import BadMessage
from braintorrent.node.roster import Roster
from braintorrent.node.trusting import objection
from braintorrent.protocol.notices import Introduction, Notice, Notices, Revocation, Rotation
from braintorrent.records import short
from braintorrent.records.notice import open_notice
from braintorrent.storage import Ledger


@dataclass(frozen=True)
class Kept:
    """A notice of the ledger, and its state."""

    notice: Notice
    state: str


def read_notices(ledger: Ledger, known: dict[bytes, Notice] | None = None) -> list[Kept]:
    """What the ledger keeps. known: those opened before; a signature takes a while to verify."""
    known, kept = {} if known is None else known, []
    for raw, state in ledger.notices():
        with contextlib.suppress(BadMessage):  # damaged on this disk: `audit` says so
            notice = known.get(raw) or open_notice(raw)
            known[raw] = notice
            kept.append(Kept(notice, state))
    return kept


def own_rotation(ledger: Ledger, me: str) -> bytes:
    """The notice by which this lab came to its key; empty if it always had this one."""
    said = (each.notice for each in read_notices(ledger))
    return next((notice.raw for notice in said if isinstance(notice, Rotation) and notice.peer == me), b"")


def newest(kept: Collection[Kept], roster: Roster, me: str) -> list[Kept]:
    """Those that count: of whom the roster trusts, and not outdated by the same author."""
    counts = Notices()
    for each in kept:
        counts.add(each.notice)
    counts.keep_of(roster.ids | {me})
    digests = {notice.digest for notice in counts}
    return [each for each in kept if each.notice.digest in digests]


def waiting(kept: Collection[Kept], roster: Roster, me: str) -> list[Introduction | Revocation]:
    """What a person is asked about, but for what the roster says already."""
    found = (each.notice for each in newest(kept, roster, me) if each.state == "waiting")
    return [
        notice
        for notice in found
        if isinstance(notice, Introduction | Revocation)
        and (notice.peer in roster.members) == isinstance(notice, Revocation)
    ]


def advice(notice: Introduction | Revocation, roster: Roster) -> dict[str, Any]:
    """A waiting notice, for people and scripts."""
    introduces = isinstance(notice, Introduction)
    name = notice.name if introduces else roster.name(notice.peer)
    return {
        "kind": "introduction" if introduces else "revocation", "name": name, "id": notice.peer,
        "by": roster.name(notice.author), "why": "" if isinstance(notice, Introduction) else notice.why,
        "unix": notice.unix_ms / 1000, "settle": f"braintorrent trust --accept {name}, or --decline {name}",
    }  # fmt: skip


def said(advice: dict[str, Any]) -> str:
    """The same in words."""
    why = f": {advice['why']}" if advice["why"] else ""
    verb = "introduces" if advice["kind"] == "introduction" else "revoked"
    return f"{advice['by']} {verb} {advice['name']} {short(advice['id'])}{why}; {advice['settle']}"


# ------------------------------------------------------------- policy


def decide(notice: Notice, roster: Roster, me: str, peer: Peer, kept: Collection[Kept]) -> str:
    """What becomes of a notice just heard: "heed", or the state in which it is kept."""
    if notice.author == me:
        return "own"  # from a life that this disk does not remember
    match notice:
        case Introduction():
            return _about_introduction(notice, roster, me, peer, kept)
        case Revocation():
            return _about_revocation(notice, roster, me, peer)
        case Rotation() if notice.author in roster.members and notice.peer not in roster.revoked:
            return "heed"  # both keys say so
    return "accepted"


def _about_introduction(notice: Introduction, roster: Roster, me: str, peer: Peer, kept: Collection[Kept]) -> str:
    if notice.peer == me or notice.peer in roster.members:
        return "accepted"
    if notice.peer in roster.revoked or peer.introductions == "refuse":
        return "refused"
    count = newest(kept, roster, me)
    if any(isinstance(each.notice, Rotation) and each.notice.author == notice.peer for each in count):
        return "accepted"  # it goes by a new id
    warned = any(
        isinstance(each.notice, Revocation) and each.notice.peer == notice.peer and each.state != "refused"
        for each in count
    )
    doubt = warned or notice.name == peer.name or objection(roster, notice.peer, notice.name)
    return "waiting" if doubt or peer.introductions == "ask" else "heed"


def _about_revocation(notice: Revocation, roster: Roster, me: str, peer: Peer) -> str:
    if notice.peer == me or peer.revocations == "refuse":
        return "refused"
    if notice.peer not in roster.members:
        return "accepted"  # kept as a warning against introductions
    return "waiting" if peer.revocations == "ask" else "heed"
