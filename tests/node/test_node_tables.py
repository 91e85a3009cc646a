"""What people read: rows of tables, and other peers' troubles in plain words."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest
from rich.console import Console

from braintorrent.errors import RemoteError
from braintorrent.network.client import Client
from braintorrent.node.asking import in_words
from braintorrent.node.tables import merged, one_peer, state, trouble
from braintorrent.records import Identity

PEER = {
    "id": "b" * 52, "name": "lab-b", "present": False, "phase": "", "declined": False, "heard_seconds_ago": None,
    "known": None, "merged": None, "refused": {}, "problem": "", "bytes_in": 0, "bytes_out": 0,
}  # fmt: skip
STATUS = {
    "name": "lab-a", "id": "a" * 52, "addresses": ["[fd00::7]:47100"], "version": "1763899999000.20", "versions": 20,
    "activity": {"verb": "ready", "done": 0, "total": 0, "seconds": 3.0}, "final": False, "metrics": {},
    "last_merge": {}, "bytes_in": 0, "bytes_out": 0, "notes": {}, "peers": [PEER],
}  # fmt: skip


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ({}, "not seen yet"),
        ({"merged": "1763899999000.3"}, "away"),
        ({"declined": True, "problem": "roster: lab-b does not trust this lab yet"}, "refused"),
        ({"heard_seconds_ago": 12.2}, "silent for 12 s"),
        ({"heard_seconds_ago": 12.2, "phase": "leaving", "problem": "unreachable: gone"}, "left"),
        ({"heard_seconds_ago": 50.0, "phase": "leaving"}, "leaving"),
        ({"heard_seconds_ago": 61.0, "phase": "leaving"}, "left"),
    ],
)
def test_where_a_peer_stands(known, shown):
    peer = {**PEER, **known}
    assert state(peer) == shown
    assert bool(trouble(peer)) == (shown == "refused")


def test_addresses_are_no_markup_and_versions_are_short():
    console = Console(width=200)
    with console.capture() as capture:
        console.print(one_peer(STATUS))
    shown = capture.get()
    assert "[fd00::7]:47100" in shown
    assert re.search(r"version +20\b", shown)
    assert "1763899999000" not in shown


def test_after_a_restart_it_shows_what_was_merged_before():
    assert merged({**STATUS, "peers": [{**PEER, "merged": "1763899999000.3"}]}) == "lab-b 3"


async def test_a_dead_address_is_said_in_words():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for call in (lambda c, peer: c.identify(address), lambda c, peer: c.fetch_small(peer, address, "0" * 64, 9)):
            async with Client(Identity.create(), lambda peer: True) as client:
                with pytest.raises(RemoteError) as error:
                    await call(client, Identity.create().id)
            assert in_words(error.value, address) == f"{address} refused the connection (not running?)"


async def test_a_silent_address_is_said_in_words(monkeypatch):
    monkeypatch.setattr("braintorrent.network.limits.HANDSHAKE_SECONDS", 0.05)
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(1), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(Identity.create(), lambda peer: True) as client:
        with pytest.raises(RemoteError) as error:
            await client.identify(address)
    assert in_words(error.value, address) == f"{address} did not answer in time"
