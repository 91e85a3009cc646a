"""Notices: what this lab does about what labs say of labs. Its policy decides what it heeds, not what it passes on.

The ledger keeps each with its state: own (this lab says so), accepted (heeded, or true here already), waiting (for a
person: `trust --accept`, `--decline`), refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from braintorrent.config import Peer
from braintorrent.errors import ConfigError, StorageFull
from braintorrent.node.context import Context, log
from braintorrent.node.finding import follow_roster
from braintorrent.node.roster import Roster
from braintorrent.node.trusting import heed, objection
from braintorrent.protocol.effects import Heard
from braintorrent.protocol.notices import Introduction, Notice, Notices, Proof, Revocation, Rotation
from braintorrent.records import Identity, short
from braintorrent.records.notice import open_notice
from braintorrent.storage import Ledger, StatePaths

NOTICES_EVERY = 2.0  # seconds: what `revoke` said beside a running node is passed on this soon


@dataclass(frozen=True)
class Kept:
    """A notice of the ledger, and its state."""

    notice: Notice
    state: str


def read_notices(ledger: Ledger, known: dict[bytes, Notice] | None = None) -> list[Kept]:
    """What the ledger keeps. known: those opened before."""
    known = {} if known is None else known
    return [Kept(known.setdefault(raw, open_notice(raw)), state) for raw, state in ledger.notices()]


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
    """What a person is asked about."""
    found = (each.notice for each in newest(kept, roster, me) if each.state == "waiting")
    return [notice for notice in found if isinstance(notice, Introduction | Revocation)]


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


# ------------------------------------------------------------- in a running node


async def heard(context: Context, effect: Heard) -> None:
    """Carry out a Heard: keep the notice, and do what this lab's policy says."""
    lab, notice = context.lab, effect.notice
    try:
        async with context.hearing:  # one after the other: each may depend on what the one before changed
            state = await context.in_thread(_settle, lab.state, lab.identity, lab.peer, notice)
    except StorageFull as error:  # others will tell it again after the next start
        context.notes["disk"] = str(error)
        return
    _tell(context, notice, state)
    follow_roster(context)


def _settle(paths: StatePaths, identity: Identity, peer: Peer, notice: Notice) -> str:
    """The state of a notice just heard, durable on return, with what it changes on the roster."""
    with Ledger(paths.ledger, identity=identity) as ledger:
        state = decide(notice, Roster(paths.roster), identity.id, peer, read_notices(ledger))
        if state != "heed":
            ledger.keep_notice(notice.raw, state)
            return state
    try:
        heed(paths, identity, notice)
    except ConfigError:  # somebody at the command line was faster
        with Ledger(paths.ledger, identity=identity) as ledger:
            ledger.keep_notice(notice.raw, "waiting")
        return "waiting"
    return "heeded"


def _tell(context: Context, notice: Notice, state: str) -> None:
    """Say in the log what was heard, and to people where it concerns this lab itself."""
    name = context.lab.roster.name
    match notice:
        case Revocation() if notice.peer == context.lab.me:
            context.notes[f"revoked by {name(notice.author)}"] = notice.why or "no reason given"
            log.warning("%s trusts this lab no more: %s", name(notice.author), notice.why or "no reason given")
        case Introduction() | Revocation():
            verb = "introduces" if isinstance(notice, Introduction) else "revoked"
            log.info("%s %s %s %s: %s", name(notice.author), verb, notice.name, short(notice.peer), state)
        case Rotation() if state == "heeded":
            log.info("%s has a new key: %s", name(notice.author), short(notice.peer))
        case Proof():
            log.info("%s: a proof of two contents for version %s", name(notice.author), notice.first.version)


async def watch_notices(context: Context) -> None:
    """Hold and pass on what the ledger keeps, be it of an earlier life or of a command line beside this node."""
    while True:
        await refresh(context)
        await asyncio.sleep(NOTICES_EVERY)


async def refresh(context: Context) -> None:
    """Look at the ledger's notices: hold what is new, drop what is outdated, show what waits for a person."""
    kept, machine = await context.in_thread(read_notices, context.ledger, context.notices), context.machine
    for each in kept:
        machine.noticed(each.notice)
    held = {notice.digest for notice in machine.notices}
    outdated = [each.notice for each in kept if each.notice.digest not in held]
    if outdated:
        for notice in outdated:
            context.notices.pop(notice.raw, None)
        await context.keep(context.ledger.drop_notices, [notice.raw for notice in outdated])
    roster = context.lab.roster
    context.advice = [advice(notice, roster) for notice in waiting(kept, roster, context.lab.me)]
