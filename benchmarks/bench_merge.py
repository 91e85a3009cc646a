"""How fast is a merge? `make bench` collects `measure()`.

merge_over_memcpy: seconds to merge four peers' 100 MB float32 models from blobs in the page cache into
one's own, checks for finite values and update norms included, over seconds to copy 400 MB of existing
memory once. Medians of interleaved rounds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from braintorrent import plugins
from braintorrent.contracts import Candidate
from braintorrent.learning.merging import merge
from braintorrent.weights import Schema, TensorSpec, Weights

MODELS = 4
ELEMENTS = 25_000_000  # 100 MB of float32
ROUNDS = 7


def model(seed: int, elements: int = ELEMENTS) -> Weights:
    """A model of normal random numbers in a handful of tensors."""
    parts = 5
    weights = Weights(Schema.of(TensorSpec(f"layer{i}.weight", "F32", (elements // parts,)) for i in range(parts)))
    np.random.default_rng(seed).standard_normal(dtype=np.float32, out=weights.buffer.view(np.float32))
    return weights


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """The ratio, and both times in milliseconds."""
    method = plugins.load("methods", "braintorrent").create()
    own = model(0)
    out = own.copy()
    source = np.ones(MODELS * own.schema.nbytes, np.uint8)
    target = source.copy()
    with tempfile.TemporaryDirectory() as folder:
        candidates = []
        for seed in range(1, MODELS + 1):
            path = Path(folder) / f"{seed}"
            path.write_bytes(b"".join(model(seed).parts))
            candidates.append(Candidate(f"peer{seed}", 10 * seed, os.open(path, os.O_RDONLY)))
        me = Candidate("peer0", 25, -1)
        times: dict[str, list[float]] = {"merge": [], "memcpy": []}
        for _ in range(rounds + 1):  # the first warms the caches and is dropped
            times["memcpy"].append(_seconds(lambda: np.copyto(target, source)))
            times["merge"].append(_seconds(lambda: merge(method, own, me, candidates, out)))
        for candidate in candidates:
            os.close(candidate.descriptor)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    return {
        "merge_over_memcpy": medians["merge"] / medians["memcpy"],
        "merge_ms": 1e3 * medians["merge"],
        "memcpy_ms": 1e3 * medians["memcpy"],
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:20} {value:8.2f}")
