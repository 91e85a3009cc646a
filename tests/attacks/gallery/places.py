"""Where peers live: addresses by gossip and by mDNS, and who answers there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from blake3 import blake3
from zeroconf import DNSOutgoing, IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
from zeroconf.const import _FLAGS_AA, _FLAGS_QR_RESPONSE

from braintorrent.network.discovery import SERVICE
from braintorrent.network.wire import encode_tell
from braintorrent.protocol.messages import TellMessage
from braintorrent.records import Identity
from gallery import Answers, attack
from gallery.mallory import Mallory, answer
from gallery.scene import FEDERATION, until


@attack(
    "gossips ten thousand addresses of the victim's members, each another", named=r"\b[1-8] kept of \d{5}$", friends=2
)
async def ten_thousand_addresses_by_gossip(mallory: Mallory) -> Answers:
    scene, dice = mallory.scene, random.Random(0)
    members = [mallory.scene.witness.id, *(friend.id for friend in mallory.friends)]
    told = 0

    async def gossip(writer: asyncio.StreamWriter) -> None:
        nonlocal told
        fakes = {Identity.create().id for _ in range(64 - len(members))} | set(members)
        places = {p: tuple(f"127.99.{dice.randrange(256)}.{dice.randrange(256)}:9" for _ in range(8)) for p in fakes}
        told += 8 * len(places)
        writer.write(answer(200, encode_tell(TellMessage(addresses=places))))

    async with AsyncExitStack() as stack:
        for each in (mallory, *mallory.friends):
            await stack.enter_async_context(each.serving(ask=gossip))
        assert await until(lambda: told >= 10_000, 25), told
    kept = max(len(p["addresses"]) for p in scene.status()["peers"])
    return [f"{kept} kept of {told}"]


@attack("gossips link-local, multicast, unspecified and broadcast addresses of members", silent=True, friends=2)
async def addresses_that_are_no_hosts(mallory: Mallory) -> Answers:
    odd = ("169.254.169.254:80", "224.0.0.251:5353", "0.0.0.0:22", "255.255.255.255:9", "[fe80::1]:80", "[ff02::fb]:1")
    friend = mallory.friends[0]
    tell = TellMessage(addresses={friend.id: odd})
    async with mallory.serving(ask=answer(200, encode_tell(tell))):
        await mallory.called(2, "ask")
        assert (await mallory.hello(addresses=odd)).status == 200
        await asyncio.sleep(0.3)
    known = str(mallory.scene.entry(friend.id)["addresses"]) + str(mallory.scene.entry(mallory.id)["addresses"])
    assert not any(place in known for place in odd), known
    return None


@attack("claims in its hello to live where the neighbour and the victim do", named="another peer|ident")
async def addresses_of_others(mallory: Mallory) -> Answers:
    scene = mallory.scene
    there = next(p["addresses"][0] for p in scene.status()["peers"] if p["name"] == "neighbour")
    assert (await mallory.hello(addresses=(there, "{}:{}".format(*scene.address)))).status == 200
    assert await mallory.told("identity", 15), scene.entry(mallory.id)
    return None


@attack(
    "says by gossip that a friend lives where itself does, and answers for it", named="another peer|identity", friends=2
)
async def answering_for_another(mallory: Mallory) -> Answers:
    friend, mine = mallory.friends[0], []

    async def tell(writer: asyncio.StreamWriter) -> None:
        writer.write(mallory.tell(addresses={friend.id: tuple(mine)}))

    async with mallory.serving(ask=tell) as address:
        mine.append(address)
        assert await until(lambda: "identity" in str(mallory.scene.entry(friend.id)), 10)
    assert mallory.scene.entry(friend.id)["heard_seconds_ago"] is None
    return None


@attack("makes the victim call a port where something else than a peer answers", named="problem: unreachable: ")
async def calls_to_other_services(mallory: Mallory) -> Answers:
    got: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(1 << 16))
        writer.write(b"220 smtp ready\r\n")
        writer.close()

    server = await asyncio.start_server(listen, mallory.host, 0)
    place = f"{mallory.host}:{server.sockets[0].getsockname()[1]}"
    assert (await mallory.hello(addresses=(place,))).status == 200
    assert await until(lambda: got, 10)
    server.close()
    assert all(each[:1] == b"\x16" and mallory.id.encode() not in each for each in got), "a TLS greeting, no more"
    return None


# ------------------------------------------------------------- mDNS


def records(peer: str, host: str, port: int = 9) -> AsyncServiceInfo:
    """What a peer would announce."""
    fed = blake3(FEDERATION.encode()).hexdigest()[:16].encode()
    return AsyncServiceInfo(
        SERVICE, f"{peer}.{SERVICE}", port=port, server=f"{peer}.local.", parsed_addresses=[host],
        properties={b"id": peer.encode(), b"fed": fed},
    )  # fmt: skip


@asynccontextmanager
async def multicast(mallory: Mallory) -> AsyncIterator[AsyncZeroconf]:
    """A responder on loopback; the attack is skipped where there is no multicast."""
    if "discovery" in mallory.scene.status()["notes"]:
        pytest.skip("no multicast on this machine")
    responder = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        yield responder
    finally:
        await responder.async_close()


@attack("announces ten thousand records of peers that do not exist by mDNS", silent=True)
async def ten_thousand_records_by_mdns(mallory: Mallory) -> Answers:
    async with multicast(mallory) as responder:
        for _ in range(250):
            out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
            for _ in range(10):
                ghost = records(Identity.create().id, f"127.98.{random.randrange(256)}.{random.randrange(1, 255)}")
                for record in (ghost.dns_pointer(), ghost.dns_service(), ghost.dns_text(), *ghost.dns_addresses()):
                    out.add_answer_at_time(record, 0)
            responder.zeroconf.async_send(out)
            await asyncio.sleep(0)
        await asyncio.sleep(0.5)
    return None


@attack("announces by mDNS that a friend lives where itself does", named="identity|another peer", friends=1)
async def spoofed_mdns_records(mallory: Mallory) -> Answers:
    friend = mallory.friends[0]
    async with mallory.serving(call=False) as address, multicast(mallory) as responder:
        info = records(friend.id, mallory.host, int(address.rsplit(":", 1)[1]))
        await (await responder.async_register_service(info, cooperating_responders=True))
        assert await until(lambda: "identity" in str(mallory.scene.entry(friend.id)), 10)
        assert not mallory.calls, "a handshake, and not a word more"
    return None


@attack("announces by mDNS addresses that are no hosts, and names that are no peers", silent=True, friends=1)
async def odd_mdns_records(mallory: Mallory) -> Answers:
    friend = mallory.friends[0]
    async with multicast(mallory) as responder:
        for host in ("169.254.169.254", "224.0.0.251", "0.0.0.0"):
            info = records(friend.id, host, 80)
            out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
            for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
                out.add_answer_at_time(record, 0)
            responder.zeroconf.async_send(out)
        await asyncio.sleep(0.5)
    assert mallory.scene.entry(friend.id)["addresses"] == []
    return None
