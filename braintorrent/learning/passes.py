"""Readings of all models of a merge, block by block: statistics before it, the merge itself, a look at one model.

Models are read by pread into scratch that stays in cache, so memory is own + out + a few MiB whatever the number
of peers. Blocks come in order of peer id: the result depends on who is in, never on arrival.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.contracts import Candidate
from braintorrent.methods import Method
from braintorrent.weights import Role, Schema, Weights, narrow, role_of_dtype, widen
from braintorrent.weights.flat import aligned
from braintorrent.weights.schema import DTYPES

SCRATCH_BYTES = 8 << 20  # of one thread, for all blocks together
THREADS = 2  # numpy and pread release the interpreter; more would only share one memory bus
ROW_BYTES = (4 << 10, 768 << 10)  # of one block: shorter ones wait for the interpreter, longer ones fall out of cache


class Suspect(Exception):
    """Some value may be NaN, infinite or absurdly large."""


@dataclass(frozen=True)
class Model:
    """One participant. `weights` is None for a blob."""

    candidate: Candidate
    weights: Weights | None = None

    @property
    def author(self) -> str:
        return self.candidate.author

    def read(self, schema: Schema, start: int, scratch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bytes [start, start + scratch.size) of the values: in place from memory, in `scratch` from a blob."""
        if self.weights is not None:
            return self.weights.buffer[start : start + scratch.size]
        if os.preadv(self.candidate.descriptor, [scratch.data], len(schema.header) + start) != scratch.size:
            raise OSError(f"the blob of {self.author} became shorter while it was merged")
        return scratch


def fits(candidate: Candidate, schema: Schema) -> bool:
    """Whether its blob has exactly the agreed layout."""
    header = schema.header
    same_size = os.fstat(candidate.descriptor).st_size == schema.size
    return same_size and os.pread(candidate.descriptor, len(header), 0) == header


def load(candidate: Candidate, out: Weights) -> None:
    """All values of a blob that fits, into `out`."""
    schema = out.schema
    for start in range(0, schema.nbytes, SCRATCH_BYTES):
        part = out.buffer[start : start + SCRATCH_BYTES]
        Model(candidate).read(schema, start, part)


def measure(method: Method, everyone: Sequence[Model], schema: Schema) -> NDArray[np.float64]:
    """The method's statistics over all shared values: one more reading, and none for a method that needs none."""
    if type(method).measure is Method.measure:
        return np.zeros(0)

    def share(first: int) -> NDArray[np.float64]:
        rows = _Rows(len(everyone))
        found = method.measure([np.zeros(0, np.float32)] * len(everyone))
        for dtype, start, stop in islice(_blocks(schema, rows.nbytes), first, None, THREADS):
            if role_of_dtype(dtype) is Role.SHARED:
                found += method.measure([rows.values(i, dtype, m, schema, start, stop) for i, m in enumerate(everyone)])
        return found

    with ThreadPoolExecutor(THREADS, "merge") as pool:
        first, *rest = pool.map(share, range(THREADS))
    return sum(rest, first)


@dataclass(frozen=True)
class Pass:
    """One reading of all models, by a few threads with every so-manieth block each."""

    method: Method
    mine: Model | None
    present: Sequence[Model]
    weights: Sequence[float]
    out: Weights
    exact: bool

    def run(self) -> dict[str, float]:
        """Fill `out` and return the norms of the updates; Suspect unless `exact`."""
        with ThreadPoolExecutor(THREADS, "merge") as pool:
            parts = list(pool.map(self._share, range(THREADS)))
        if self.mine is None:
            return {}
        return {author: math.sqrt(sum(part[author] for part in parts)) for author in parts[0]}

    @np.errstate(over="ignore", invalid="ignore")  # a hostile peer prints no warnings here
    def _share(self, first: int) -> dict[str, float]:
        schema = self.out.schema
        rows = _Rows(len(self.present) + 1)  # one more: own, if the method left it out
        squares = dict.fromkeys((m.author for m in self.present if m is not self.mine), 0.0)
        for dtype, start, stop in islice(_blocks(schema, rows.nbytes), first, None, THREADS):
            target = self.out.buffer[start:stop].view(DTYPES[dtype])
            blocks = [rows.values(i, dtype, m, schema, start, stop) for i, m in enumerate(self.present)]
            if role_of_dtype(dtype) is Role.COUNTER:
                np.maximum.reduce(blocks, out=target)
                continue
            own = rows.values(-2, dtype, self.mine, schema, start, stop) if self.mine else None
            for model, block in zip(self.present, blocks, strict=True):
                if model is not self.mine:
                    squares[model.author] += self._square(block, own, rows.delta(block))
            self._combine(dtype, blocks, target, rows)
        return squares

    def _square(self, block: NDArray[Any], own: NDArray[Any] | None, delta: NDArray[Any]) -> float:
        update = np.subtract(block, own, out=delta) if own is not None else block
        square = float(np.dot(update, update))
        if not math.isfinite(square):
            if not self.exact:
                raise Suspect
            square = float(np.square(update, dtype=np.float64).sum())
        return square

    def _combine(self, dtype: str, blocks: list[NDArray[Any]], target: NDArray[Any], rows: _Rows) -> None:
        if blocks[0].dtype == target.dtype:
            self.method.combine(blocks, self.weights, target)
        else:
            merged = rows.delta(blocks[0])
            self.method.combine(blocks, self.weights, merged)
            narrow(dtype, merged, target)


class _Rows:
    """Scratch for one block of each of `count` models, and one more for what is computed from them."""

    def __init__(self, count: int) -> None:
        least, most = ROW_BYTES
        self.nbytes = max(least, min(most, SCRATCH_BYTES // (count + 1) // least * least))
        self._rows = [aligned(self.nbytes) for _ in range(count + 1)]
        self._half = aligned(self.nbytes // 2)

    def values(self, i: int, dtype: str, model: Model, schema: Schema, start: int, stop: int) -> NDArray[Any]:
        """Model `i`'s block as numbers numpy can compute with: half precision comes as float32."""
        row = self._rows[i]
        if dtype not in ("BF16", "F16"):
            return model.read(schema, start, row[: stop - start]).view(DTYPES[dtype])
        raw = model.read(schema, start, self._half[: stop - start]).view(DTYPES[dtype])
        wide = row[: 2 * (stop - start)].view(np.float32)
        widen(dtype, raw, wide)
        return wide

    def delta(self, like: NDArray[Any]) -> NDArray[Any]:
        """The spare row, shaped like a block."""
        return self._rows[-1][: like.nbytes].view(like.dtype)


def _blocks(schema: Schema, nbytes: int) -> Iterator[tuple[str, int, int]]:
    """(dtype, start, stop) over all values; at most `nbytes` each once widened."""
    for dtype, start, stop in schema.runs:
        step = nbytes // 2 if dtype in ("BF16", "F16") else nbytes
        for first in range(start, stop, step):
            yield dtype, first, min(first + step, stop)


def plausible(model: Model, schema: Schema) -> bool:
    """Whether every float is finite and so small that no mean and no difference of two overflows."""
    rows = _Rows(1)
    for dtype, start, stop in _blocks(schema, rows.nbytes):
        if role_of_dtype(dtype) is Role.SHARED:
            block = rows.values(0, dtype, model, schema, start, stop)
            if not np.abs(block).max() <= np.finfo(block.dtype).max / 4:  # also False for NaN
                return False
    return True
