"""Real zeroconf on loopback: peers of one federation find each other; nothing is believed, nothing is fatal."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import psutil
from blake3 import blake3
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from braintorrent.network import discovery, limits
from braintorrent.network.discovery import SERVICE, Discovery
from braintorrent.records import Identity

A, B, C = (Identity.create().id for _ in range(3))


class Sightings:
    """Collects sightings, and waits for one."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.news = asyncio.Event()

    def __call__(self, peer: str, address: str) -> None:
        self.seen.append((peer, address))
        self.news.set()

    async def wait_for(self, peer: str, address: str) -> None:
        async with asyncio.timeout(10):
            while (peer, address) not in self.seen:
                self.news.clear()
                await self.news.wait()


def announce(peer, port, on_sighting, federation="fed-1"):
    return Discovery(peer, federation, port, "127.0.0.1", on_sighting)


async def test_two_peers_find_each_other_and_again_after_a_move():
    at_a, at_b = Sightings(), Sightings()
    started = time.monotonic()
    async with announce(A, 47101, at_a) as a:
        async with announce(B, 47102, at_b) as b:
            assert a.problem is b.problem is None
            await at_a.wait_for(B, "127.0.0.1:47102")
            await at_b.wait_for(A, "127.0.0.1:47101")
            assert time.monotonic() - started < 8
        async with announce(B, 47103, Sightings()):
            await at_a.wait_for(B, "127.0.0.1:47103")
    assert {peer for peer, _ in at_a.seen} == {B}


async def test_another_federation_and_false_records_are_not_reported():
    at_a, at_c = Sightings(), Sightings()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(announce(A, 47111, at_a))
        await stack.enter_async_context(announce(B, 47112, Sightings(), federation="fed-2"))
        liar = AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
        stack.push_async_callback(liar.async_close)
        fed = blake3(b"fed-1").hexdigest()[:16]
        for name, properties in (
            ("not-a-peer-id", {"id": "not-a-peer-id", "fed": fed}),
            (Identity.create().id, {"id": B, "fed": fed}),
            (Identity.create().id, {}),
        ):
            info = AsyncServiceInfo(
                SERVICE, f"{name}.{SERVICE}", port=1, parsed_addresses=["127.0.0.1"], properties=properties,
                server="liar.local.",
            )  # fmt: skip
            await (await liar.async_register_service(info, cooperating_responders=True))
        await stack.enter_async_context(announce(C, 47113, at_c))  # all of the above came before
        await at_a.wait_for(C, "127.0.0.1:47113")
        await at_c.wait_for(A, "127.0.0.1:47111")
    assert {peer for peer, _ in at_a.seen} == {C}


async def test_a_flood_of_names_is_believed_up_to_the_cap(monkeypatch):
    monkeypatch.setattr(limits, "SIGHTINGS", 1)
    at_a = Sightings()
    async with announce(B, 47122, print), announce(C, 47123, print), announce(A, 47121, at_a):
        async with asyncio.timeout(10):
            await at_a.news.wait()
        await asyncio.sleep(0.5)
    assert len({peer for peer, _ in at_a.seen}) == 1


async def test_a_flood_of_names_does_not_hide_who_is_on_the_roster(monkeypatch):
    monkeypatch.setattr(limits, "SIGHTINGS", 0)
    monkeypatch.setattr(limits, "LOOKUPS", 0)
    at_a = Sightings()
    async with (
        announce(B, 47152, print),
        announce(C, 47153, print),
        Discovery(A, "fed-1", 47151, "127.0.0.1", at_a, lambda peer: peer == C),
    ):
        await at_a.wait_for(C, "127.0.0.1:47153")
    assert {peer for peer, _ in at_a.seen} == {C}


async def test_no_multicast_is_a_problem_to_report_not_an_error(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise OSError(19, "No such device")

    monkeypatch.setattr(discovery, "AsyncZeroconf", refuse)
    async with announce(A, 47131, print) as a:
        assert "No such device" in a.problem
        assert "static" in a.problem
    assert len(caplog.records) == 1
    await a.close()


async def test_nothing_is_left_behind():
    async def once():
        async with announce(A, 47141, print):
            pass

    process = psutil.Process()
    await once()
    before = process.num_fds(), process.num_threads(), len(asyncio.all_tasks())
    await once()
    await asyncio.sleep(0.05)
    assert (process.num_fds(), process.num_threads(), len(asyncio.all_tasks())) == before
