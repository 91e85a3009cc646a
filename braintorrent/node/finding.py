"""Discover: mDNS sightings, static addresses, the roster's own hints, and changes of the roster itself."""

from __future__ import annotations

import asyncio

from braintorrent.errors import FormatError, RemoteError
from braintorrent.network.client import Client
from braintorrent.node.context import Context, log

MAX_STRANGERS = 256  # sighted, not on the roster (yet): enough for a campus, nothing for a flood
ROSTER_EVERY = 2.0  # seconds: `braintorrent trust` beside a running node takes effect this soon
STATIC_EVERY = 15.0  # seconds between attempts at a static address that nobody on the roster answers at


def sighted(context: Context, peer: str, address: str) -> None:
    """Somebody was seen. Strangers are remembered, since people may trust them a moment later."""
    if peer not in context.lab.roster.ids and len(context.strangers) < MAX_STRANGERS:
        context.strangers[peer] = address
    context.tell(lambda now: context.machine.sighted(peer, address, now))


async def watch_roster(context: Context) -> None:
    """Follow the roster file for as long as the node runs."""
    _dial_roster(context)
    while True:
        await asyncio.sleep(ROSTER_EVERY)
        try:
            changed = context.lab.roster.refresh()
        except FormatError as error:
            context.notes["roster"] = str(error)  # what was read before stays in force
            continue
        context.notes.pop("roster", None)
        if changed:
            log.info("roster changed: %d trusted", len(context.lab.roster.ids))
            context.tell(lambda now: context.machine.roster_changed(context.lab.members, now))
            _dial_roster(context)


def _dial_roster(context: Context) -> None:
    for peer, member in context.lab.roster.members.items():
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
                trouble = error.detail
            else:
                trouble = "" if peer in context.lab.roster.ids else f"{peer} lives there and is not on the roster"
                sighted(context, peer, address)
            if trouble and trouble != told.get(address):
                log.info("%s: %s", address, trouble)
            told[address] = trouble
        await asyncio.sleep(STATIC_EVERY)
