"""Three peers with 25M-parameter models: from the last announcement until each has merged both others.

Real processes, mutual TLS, real disks. Each peer trains one stand-in version and waits with its next merge
until both others' models are verified and stored (quorum 2). A round is timed by the ledgers: from the last
of the three publications to the last of the three merges. The yardstick is a bare TLS 1.3 socket moving the
same bytes (three peers times two models of 100 MB) from another process, measured before and after.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import tomli_w

from benchmarks.bench_fetch import SIZE, bare_receiver, start_sender
from braintorrent.experiments.processes import Processes, introduce
from braintorrent.records import Identity
from braintorrent.storage import BlobStore, Ledger, StatePaths

PEERS, VERSIONS = 3, 8
TASK = {"kind": "standin", "size": 25_000_000, "steps": 1, "seconds": 2.0}  # all three are asking by then
TRANSFERS = PEERS * (PEERS - 1)


def make(root: Path) -> list[Path]:
    (root / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "benchmark-exchange", "task": TASK}))
    timing = {"ask_every": 1.0, "alone_after": 60.0, "linger": 60.0, "quorum": PEERS - 1, "patience": 60.0}
    folders = [root / f"peer-{number}" for number in range(PEERS)]
    for folder in folders:
        folder.mkdir()
        peer = {"name": folder.name, "listen": "127.0.0.1:0", "timing": timing, "stop": {"versions": VERSIONS}}
        (folder / "peer.toml").write_text(tomli_w.dumps(peer))
    introduce(folders)
    return folders


def rounds(folders: list[Path]) -> list[float]:
    """Seconds from the last publication of version v to the last merge into version v + 1, for v = 1, 2, ..."""
    published: dict[int, list[float]] = {}
    merged: dict[int, list[float]] = {}
    for folder in folders:
        with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
            for version, unix in ledger.published():
                published.setdefault(version.counter, []).append(unix)
            for into, merge in ledger.merges():
                if into is not None and len(merge.included) == PEERS:
                    merged.setdefault(into.counter - 1, []).append(merge.unix)
    whole = [v for v in merged if len(merged[v]) == PEERS and len(published[v]) == PEERS]
    return [max(merged[v]) - max(published[v]) for v in sorted(whole)]


def bare(folder: Path, repeats: int) -> list[float]:
    """Seconds for the bytes of one round over one bare TLS connection."""
    for name in ("sender", "receiver"):
        Identity.create().save(folder / f"{name}.pem")
    digest = BlobStore(folder / "sent", 10 * SIZE).put([bytes(SIZE)]).digest
    with ExitStack() as stack:
        receive = bare_receiver(folder, start_sender(stack, "bare", str(folder), digest), stack)
        return [sum(receive() for _ in range(TRANSFERS)) for _ in range(1 + repeats)][1:]


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "before").mkdir()
        (root / "after").mkdir()
        (root / "peers").mkdir()
        seconds = bare(root / "before", 3)
        with Processes(make(root / "peers")) as peers:
            peers.watch(lambda statuses, ended: None)
            time.sleep(1)
        if any(peers.ended.values()):
            raise RuntimeError(f"a peer failed: {peers.last_words(peers.folders[0], 30)}")
        exchanged = rounds(peers.folders)
        seconds += bare(root / "after", 3)
    if len(exchanged) < 5:
        raise RuntimeError(f"only {len(exchanged)} whole rounds")
    exchange = statistics.median(exchanged)
    return {"exchange_over_bare": exchange / statistics.median(seconds), "exchange_s_3x25m": exchange}


if __name__ == "__main__":
    print(measure())
