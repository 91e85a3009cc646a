"""Two peers that train for real, with MONAI transforms: do they answer meanwhile, and how idle are they?

ask_p99_ms_training: a third member asks both of them again and again over mutual TLS while they train, fetch,
merge and publish; the 99th percentile of the answers' times, from outside. idle_share: share of a peer's time,
from its first step to its last, that went into neither training nor evaluation, the larger of the two peers.
On the hippocampus scans beside the project where they are, else on the demo's brains.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from pathlib import Path

from braintorrent.config import load_federation, load_peer
from braintorrent.experiments.demo import Demo
from braintorrent.experiments.processes import Processes
from braintorrent.network.client import Client
from braintorrent.network.wire import Hello
from braintorrent.node.control import read_status
from braintorrent.node.lab import Lab
from braintorrent.node.roster import Member
from braintorrent.node.trusting import trust
from braintorrent.protocol.messages import AskMessage
from braintorrent.records import Identity
from braintorrent.storage import StatePaths

SCANS = Path(__file__).parents[2] / "shared/data/Task04_Hippocampus"
VERSIONS = 24  # enough asks that their 99th percentile is not the slowest
PAUSE = 0.07  # seconds between two asks: a peer may ask 16 times a second


async def ask_on(me: Identity, folders: list[Path], agreed: dict[str, str], ended: threading.Event) -> list[float]:
    """Milliseconds of each answer, while the asked peer was at work."""
    federation = load_federation(folders[0].parent / "federation.toml").id
    times: list[float] = []
    async with Client(me, lambda peer: True) as client:
        await asyncio.gather(*(_ask_one(client, f, federation, agreed, ended, times) for f in folders))
    return times


async def _ask_one(client: Client, folder: Path, federation: str, agreed, ended, times: list[float]) -> None:  # type: ignore[no-untyped-def]
    status = None
    while status is None or not status["versions"]:
        status = await asyncio.to_thread(read_status, folder)
        await asyncio.sleep(0.2)
    peer, address = status["id"], status["addresses"][0]
    hello = Hello("asker", federation, agreement=agreed, clock_ms=int(time.time() * 1000))
    await client.hello(peer, address, hello)
    while not ended.is_set():
        began = time.perf_counter()
        tell = await client.ask(peer, address, AskMessage(None, {}), 10.0)
        if tell.phase != "working":
            return
        times.append(1e3 * (time.perf_counter() - began))
        await asyncio.sleep(PAUSE)


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        scans = SCANS if SCANS.exists() else None
        folders = Demo(Path(name) / "out", peers=2, data=scans, versions=VERSIONS, continuous=True).prepare()
        me = Identity.create()
        for folder in folders:
            paths = StatePaths(folder)
            trust(paths, Identity.load(paths.key), me.id, Member(name="asker"))
        lab = Lab.open(folders[0])
        agreed = lab.agreement
        lab.state.close()
        ended, times = threading.Event(), []
        with Processes(folders) as peers:
            asking = threading.Thread(target=lambda: times.extend(asyncio.run(ask_on(me, folders, agreed, ended))))
            asking.start()
            peers.watch(lambda statuses, done: None)
            ended.set()
            asking.join()
        last = [peers.last[load_peer(folder).name] for folder in folders]
        shares = [status["idle_share"] for status in last if status is not None]
    hundredths = statistics.quantiles(times, n=100)
    return {
        "ask_p99_ms_training": hundredths[98], "ask_median_ms_training": statistics.median(times),
        "asks_training": float(len(times)), "idle_share": max(shares),
    }  # fmt: skip


if __name__ == "__main__":
    print(measure())
