"""How fast and how lean is a merge? `make bench` collects `measure()`.

merge_over_memcpy: seconds to merge four peers' 100 MB float32 models from blobs in the page cache into
one's own, checks for finite values and update norms included, over seconds to copy 400 MB of existing
memory once. Medians of interleaved rounds.

peak_mib_8_peers: MiB by which a process that has its own 100 MB model grows, at most, while it receives,
verifies and stores eight others (in pieces of 256 KiB, as a client hands them on) and merges them.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from braintorrent import plugins
from braintorrent.contracts import Candidate
from braintorrent.learning.merging import merge
from braintorrent.records import Artifact
from braintorrent.storage import BlobStore
from braintorrent.weights import Schema, TensorSpec, Weights

MERGED, PEERS = 4, 8
ELEMENTS = 25_000_000  # 100 MB of float32
PIECE = 256 << 10
ROUNDS = 7
ROOMY = 1 << 40


def model(seed: int) -> Weights:
    """A model of normal random numbers in a handful of tensors."""
    parts = 5
    weights = Weights(Schema.of(TensorSpec(f"layer{i}.weight", "F32", (ELEMENTS // parts,)) for i in range(parts)))
    np.random.default_rng(seed).standard_normal(dtype=np.float32, out=weights.buffer.view(np.float32))
    return weights


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Both figures, and the times behind the first."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder) / "others", ROOMY)
        artifacts = [store.put(model(1 + i).parts) for i in range(PEERS)]
        times = speed(store, artifacts[:MERGED], rounds)
        (Path(folder) / "artifacts").write_text("\n".join(a.model_dump_json() for a in artifacts))
        command = [sys.executable, __file__, "peak", folder]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"merge_over_memcpy": times["merge_ms"] / times["memcpy_ms"], **times, "peak_mib_8_peers": float(peak)}


def speed(store: BlobStore, artifacts: list[Artifact], rounds: int) -> dict[str, float]:
    """Median milliseconds of a merge, and of a memcpy of as many bytes as the others' models have."""
    own = model(0)
    out = own.copy()
    source = np.ones(len(artifacts) * own.schema.nbytes, np.uint8)
    target = source.copy()
    times: dict[str, list[float]] = {"merge_ms": [], "memcpy_ms": []}
    for _ in range(rounds + 1):  # the first warms the caches and is dropped
        times["memcpy_ms"].append(_milliseconds(lambda: np.copyto(target, source)))
        times["merge_ms"].append(_milliseconds(lambda: merge_all(store, artifacts, own, out)))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def merge_all(store: BlobStore, artifacts: list[Artifact], own: Weights, out: Weights) -> None:
    """Merge these blobs into `own`, as peers of different sizes."""
    method = plugins.load("methods", "braintorrent").create()
    candidates = [Candidate(f"peer{i}", 10 + i, store.open(a.digest)[0]) for i, a in enumerate(artifacts)]
    outcome = merge(method, own, Candidate("me", 25, -1), candidates, out)
    for candidate in candidates:
        os.close(candidate.descriptor)
    assert len(outcome.included) == len(artifacts) + 1


def peak(folder: Path) -> float:
    """Growth of this process in MiB; it has to be a fresh one, that freed memory does not flatter."""
    lines = (folder / "artifacts").read_text().splitlines()
    artifacts = [Artifact.model_validate_json(line) for line in lines]
    others, store = BlobStore(folder / "others", ROOMY), BlobStore(folder / "own", ROOMY)
    own = model(0)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    for artifact in artifacts:
        descriptor, _ = others.open(artifact.digest)
        incoming = store.receive(artifact)
        while piece := os.read(descriptor, PIECE):
            incoming.write(memoryview(piece))
        os.close(descriptor)
        incoming.commit()
    merge_all(store, artifacts, own, Weights(own.schema))
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("this benchmark reads /proc/self/status, which only Linux has")
    return int(found[1]) / 1024


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        print(peak(Path(sys.argv[2])))
    else:
        for name, value in measure().items():
            print(f"{name:20} {value:8.2f}")
