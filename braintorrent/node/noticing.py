"""Notices in a running node: heard, kept, heeded by this lab's policy (advice.py), and all passed on."""

from __future__ import annotations

import asyncio

from braintorrent.config import Peer
from braintorrent.errors import ConfigError
from braintorrent.node.advice import advice, decide, revokers, said, waiting
from braintorrent.node.context import Context, log
from braintorrent.node.finding import follow_roster
from braintorrent.node.kept import read_notices, taken_off
from braintorrent.node.roster import Roster
from braintorrent.node.trusting import heed
from braintorrent.protocol.effects import Heard
from braintorrent.protocol.notices import Introduction, Notice, Proof, Revocation, Rotation
from braintorrent.records import Identity, short
from braintorrent.storage import Ledger, StatePaths

NOTICES_EVERY = 2.0  # seconds: what `revoke` said beside a running node is passed on this soon


async def heard(context: Context, effect: Heard) -> None:
    """Carry out a Heard: keep the notice, and do what this lab's policy says."""
    lab, notice = context.lab, effect.notice
    async with context.hearing:  # one after the other: each may depend on what the one before changed
        # The machine has it now, so nobody will tell it again before the next start.
        state = await context.insist(_settle, lab.state, lab.identity, lab.peer, notice, context.notices)
    _tell(context, notice, state)
    follow_roster(context)


def _settle(
    paths: StatePaths, identity: Identity, peer: Peer, notice: Notice, known: dict[bytes, Notice]
) -> str:  # fmt: skip
    """The state of a notice just heard, durable on return, with what it changes on the roster."""
    with Ledger(paths.ledger, identity=identity) as ledger:
        gone = taken_off(ledger) if isinstance(notice, Introduction) else {}
        state = decide(notice, Roster(paths.roster), identity.id, peer, read_notices(ledger, known), gone)
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
            context.revokers = {**context.revokers, notice.author: notice.why or "no reason given"}
            log.warning("%s trusts this lab no more: %s", name(notice.author), notice.why or "no reason given")
        case Introduction() if notice.peer == context.lab.me:
            pass  # of this lab itself
        case Introduction() | Revocation() | Rotation() if state == "waiting":
            told = advice(notice, context.lab.roster, context.lab.folder.resolve())
            if told not in context.advice:  # the ledger had it already, and `refresh` may have looked there meanwhile
                context.advice = [*context.advice, told]
            context.notes.pop(f"stranger {short(notice.peer)}", None)
            log.warning("waiting: %s", said(told))
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
    kept, machine = await context.insist(read_notices, context.ledger, context.notices), context.machine
    machine.noticed(*(each.notice for each in kept))
    held = {notice.digest for notice in machine.notices}
    outdated = [each.notice for each in kept if each.notice.digest not in held]
    if outdated:
        for notice in outdated:
            context.notices.pop(notice.raw, None)
        await context.keep(context.ledger.drop_notices, [notice.raw for notice in outdated])
    roster, me, folder = context.lab.roster, context.lab.me, context.lab.folder.resolve()
    context.advice = [advice(notice, roster, folder) for notice in waiting(kept, roster, me)]
    context.revokers = revokers(kept, roster, me)
