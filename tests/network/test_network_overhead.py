"""What exchanges take on a line, counted between two real peers: the simulator reckons with as much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from braintorrent.errors import Gone
from braintorrent.protocol.messages import AskMessage
from braintorrent.simulation import sizes

ASK = AskMessage(None, {})


class Relay:
    """Passes bytes on between callers and one address, and counts them."""

    def __init__(self, to: str) -> None:
        self.host, _, port = to.rpartition(":")
        self.port, self.up, self.down = int(port), 0, 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Where to call instead."""
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        try:
            yield "{}:{}".format(*server.sockets[0].getsockname()[:2])
        finally:
            server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self.host, self.port)
        await asyncio.gather(self._pump(reader, there_writer, "up"), self._pump(there_reader, writer, "down"))

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, way: str) -> None:
        while data := await source.read(1 << 16):
            setattr(self, way, getattr(self, way) + len(data))
            to.write(data)
            await to.drain()
        to.close()

    def since(self, before: tuple[int, int]) -> tuple[int, int]:
        """Bytes (up, down) after `before`."""
        return self.up - before[0], self.down - before[1]


async def test_the_simulator_reckons_with_the_bytes_of_real_exchanges(pair, sink):
    async with pair() as (a, b, client, address):
        relay, weights = Relay(address), b"w" * 500_000
        record, content = b.put(b"r" * sizes.RECORD), b.put(weights)
        async with relay.open() as there:
            await client.hello(b.id, there, a.say())
            before = relay.up, relay.down
            await client.ask(b.id, there, ASK, 5)
            assert relay.since(before) == pytest.approx((sizes.ASK, sizes.TELL), rel=0.05)
            before = relay.up, relay.down
            await client.fetch_small(b.id, there, record, sizes.RECORD)
            await client.fetch(b.id, there, content, len(weights), sink)
            assert relay.since(before) == pytest.approx((sizes.REQUEST, sizes.model(len(weights))), rel=0.05)
            beside = relay.since(before)[1] - len(weights)
            assert beside == pytest.approx(sizes.model(len(weights)) - len(weights), rel=0.05)
            before = relay.up, relay.down
            with pytest.raises(Gone):
                await client.fetch_small(b.id, there, "0" * 64, 10)
            assert relay.since(before)[1] == pytest.approx(sizes.REFUSAL, rel=0.05)
            await client.close()
