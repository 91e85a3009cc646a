"""Discover: mDNS sightings, static addresses, the roster's own hints, and changes of the roster itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain

from braintorrent.errors import FormatError, RemoteError
from braintorrent.network.address import own_addresses, parse_address
from braintorrent.network.client import Client
from braintorrent.network.conduct import Conduct
from braintorrent.network.dialling import is_loopback
from braintorrent.node.asking import in_words
from braintorrent.node.context import Context, log
from braintorrent.node.lab import Lab
from braintorrent.node.roster import BY_CODE, Roster
from braintorrent.protocol.steps import Step
from braintorrent.protocol.table import Table
from braintorrent.records import short

MAX_STRANGERS = 256  # sighted, not on the roster (yet): enough for a campus, nothing for a flood
MAX_KNOCKS = 8  # strangers that asked, told to people
ROSTER_EVERY = 2.0  # seconds: `braintorrent trust` beside a running node takes effect this soon
STATIC_EVERY = 15.0  # seconds between attempts at a static address that nobody on the roster answers at


def sighted(context: Context, peer: str, address: str) -> None:
    """Somebody was seen. Strangers are remembered, since people may trust them a moment later."""
    if not context.client.dialling.plausible(address):
        return
    if peer not in context.lab.roster.ids and len(context.strangers) < MAX_STRANGERS:
        context.strangers[peer] = address
    context.tell(lambda now: context.machine.sighted(peer, address, now))


def knocked(context: Context, peer: str) -> None:
    """Somebody asked who is not on the roster. People are told once: perhaps the trust is only half done."""
    revoked = context.lab.roster.revoked.get(peer)
    what = f"{'revoked' if revoked else 'stranger'} {short(peer)}"
    if any(advice["id"] == peer for advice in context.advice):
        return  # more is known of it, and a person is asked already
    if what not in context.notes and sum(note.startswith("stranger ") for note in context.notes) < MAX_KNOCKS:
        where = context.lab.folder.resolve()
        text = f'asked and is not on the roster; if you know it: braintorrent trust "NAME {peer}" -C {where}'
        if revoked is not None:
            text = f"{revoked.name}, revoked here, still asks"
        context.notes[what] = text
        log.info("%s %s", short(peer), text)


def nearby(lab: Lab) -> Callable[[], bool]:
    """Asks whether labs live on this machine: this one listens on loopback, or its people wrote such an address."""
    here = {str(address) for address in (*lab.peer.peers, *own_addresses(parse_address(lab.peer.listen)))}

    def answer() -> bool:
        known = (member for member in lab.roster.members.values() if member.vouched in ("", BY_CODE))
        hints = (address for member in known for address in member.addresses)
        return any(is_loopback(parse_address(address).host) for address in chain(here, hints))

    return answer


async def watch_roster(context: Context) -> None:
    """Follow the roster file for as long as the node runs."""
    if context.machine.step is Step.SEEKING:
        wait = max(0.0, context.machine.deadline - context.now)
        log.info("looking for %s for up to %.0f s", context.lab.roster.names or "a lab that it may trust", wait)
    _dial_roster(context)
    while True:
        await asyncio.sleep(ROSTER_EVERY)
        follow_roster(context)


def follow_roster(context: Context) -> None:
    """Act on the roster file if it changed."""
    before = context.lab.roster.ids
    try:
        changed = context.lab.roster.refresh()
    except FormatError as error:
        context.notes["roster"] = str(error)  # what was read before stays in force
        return
    context.notes.pop("roster", None)
    if changed:
        log.info("roster changed: %d trusted", len(context.lab.roster.ids))
        carry_over(context.lab.roster, context.machine.table, context.conduct)  # before the old keys are struck off
        context.tell(lambda now: context.machine.roster_changed(context.lab.members, now))
        for peer in before - context.lab.roster.ids:
            context.part(peer)
        _dial_roster(context)


def carry_over(roster: Roster, table: Table, conduct: Conduct) -> None:
    """What a lab did under a key that it had before is held against it under its new one."""
    for heir, member in roster.members.items():
        for peer in member.former:
            table.inherit(peer, heir)
            conduct.inherit(peer, heir)


def _dial_roster(context: Context) -> None:
    for peer, member in context.lab.roster.members.items():
        for kind in ("stranger", "revoked"):
            context.notes.pop(f"{kind} {short(peer)}", None)
        met = context.strangers.pop(peer, None)
        for address in (*member.addresses, *([met] if met else [])):
            sighted(context, peer, address)


async def find_static(context: Context, client: Client, addresses: list[str]) -> None:
    """Learn who is behind each static address, and keep trying those that do not answer."""
    told: dict[str, str] = {}  # address -> the last trouble, logged once
    while True:
        answered = {a for c in context.machine.contacts.of.values() if c.failures == 0 for a in c.addresses[:1]}
        for address in addresses:
            if address in answered:
                continue
            try:
                peer = await client.identify(address)
            except RemoteError as error:
                trouble = in_words(error, address)
            else:
                known = peer in context.lab.roster.ids
                trouble = "" if known else f"{address}: {peer} lives there and is not on the roster"
                sighted(context, peer, address)
            if trouble and trouble != told.get(address):
                log.info("static address %s", trouble)
            told[address] = trouble
        await asyncio.sleep(STATIC_EVERY)
