"""Merge: own model and the verified ones, block by block, as the method says. No torch, no network.

Models are read by pread into scratch that stays in cache, so memory is own + out + a few MiB whatever
the number of peers. Blocks come in order of peer id: the result depends on who is in, never on arrival.

A model that does not fit, or holds a value no model holds, is skipped with a reason, and the weights are
computed anew over those left. Finiteness is checked in the pass that merges, from the norm of the update;
only if that hints at trouble is everybody examined exactly and the pass begun again.
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

from braintorrent.contracts import Candidate, MergeOutcome
from braintorrent.methods import Method
from braintorrent.weights import Role, Schema, Weights, narrow, role_of_dtype, widen
from braintorrent.weights.flat import aligned
from braintorrent.weights.schema import DTYPES

SCRATCH_BYTES = 8 << 20  # of one thread, for all blocks together: measured best where cores share a cache of 32 MiB
THREADS = 2  # numpy and pread release the interpreter; more would only share one memory bus
ROW_BYTES = (4 << 10, 1 << 20)  # of one block: shorter ones pay for the interpreter, longer ones fall out of cache


class _Suspect(Exception):
    """Some value may be NaN, infinite or absurdly large."""


@dataclass(frozen=True)
class _Model:
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


def merge(
    method: Method, own: Weights | None, me: Candidate, candidates: Sequence[Candidate], out: Weights
) -> MergeOutcome:
    """Write the merged model to `out` (not `own`'s memory) and say who is in it, at what weight, who is not and why.

    own: this peer's model, None when a newcomer adopts; me: its id and samples (descriptor unused).
    Reasons: "schema" (another layout), "not-finite" (NaN, infinity, or beyond a quarter of the dtype's
    range), "too-few" (fewer than the method needs), "method" (it left the author out). With nobody to
    merge and nothing of its own, `included` is empty and `out` is untouched.
    """
    schema = out.schema
    if own is not None and (own.schema.digest != schema.digest or np.may_share_memory(own.buffer, out.buffer)):
        raise ValueError("own and out must be two models of one schema")
    fits = {c.author: _fits(c, schema) for c in candidates}
    skipped = {author: "schema" for author, fit in fits.items() if not fit}
    if len(fits) != len(candidates) or (own is not None and me.author in fits):
        raise ValueError("an author can be in a merge once")
    mine = _Model(me, own) if own is not None else None
    models = [_Model(c) for c in candidates if fits[c.author]]
    try:
        return _merge(method, mine, models, skipped, out, exact=False)
    except _Suspect:
        unfit = {m.author for m in [*models, *([mine] if mine else [])] if not _plausible(m, schema)}
        skipped |= dict.fromkeys(sorted(unfit), "not-finite")
        models = [m for m in models if m.author not in unfit]
        return _merge(method, None if me.author in unfit else mine, models, skipped, out, exact=True)


def _fits(candidate: Candidate, schema: Schema) -> bool:
    header = schema.header
    same_size = os.fstat(candidate.descriptor).st_size == schema.size
    return same_size and os.pread(candidate.descriptor, len(header), 0) == header


def _merge(
    method: Method, mine: _Model | None, models: Sequence[_Model], skipped: dict[str, str], out: Weights, *, exact: bool
) -> MergeOutcome:
    if not models or len(models) < method.needs.candidates:
        skipped = skipped | {m.author: "too-few" for m in models}
        if mine is None or mine.weights is None:
            return MergeOutcome({}, skipped)
        out.copy_from(mine.weights)
        return MergeOutcome({mine.author: 1.0}, skipped)
    weights = method.weigh(mine.candidate if mine else None, [m.candidate for m in models])
    if not all(w >= 0 for w in weights.values()) or not math.isclose(sum(weights.values()), 1.0, rel_tol=1e-6):
        raise ValueError(f"{type(method).__name__}.weigh must give weights >= 0 that sum to 1, gave {weights}")
    everyone = sorted([*models, *([mine] if mine else [])], key=lambda m: m.author)
    present = [m for m in everyone if m.author in weights]
    skipped = skipped | {m.author: "method" for m in everyone if m.author not in weights}
    work = _Pass(method, mine, present, [weights[m.author] for m in present], out, exact)
    return MergeOutcome({m.author: weights[m.author] for m in present}, skipped, work.run())


@dataclass(frozen=True)
class _Pass:
    """One reading of all models, by a few threads with every so-manieth block each."""

    method: Method
    mine: _Model | None
    present: Sequence[_Model]
    weights: Sequence[float]
    out: Weights
    exact: bool

    def run(self) -> dict[str, float]:
        """Fill `out` and return the norms of the updates; _Suspect unless `exact`."""
        with ThreadPoolExecutor(THREADS, "merge") as pool:
            parts = list(pool.map(self._share, range(THREADS)))
        if self.mine is None:
            return {}
        return {author: math.sqrt(sum(part[author] for part in parts)) for author in parts[0]}

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
        with np.errstate(over="ignore", invalid="ignore"):  # a hostile peer prints no warnings here
            update = np.subtract(block, own, out=delta) if own is not None else block
            square = float(np.dot(update, update))
            if not math.isfinite(square):
                if not self.exact:
                    raise _Suspect
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

    def values(self, i: int, dtype: str, model: _Model, schema: Schema, start: int, stop: int) -> NDArray[Any]:
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


def _plausible(model: _Model, schema: Schema) -> bool:
    """Whether every float is finite and so small that no mean and no difference of two overflows."""
    rows = _Rows(1)
    for dtype, start, stop in _blocks(schema, rows.nbytes):
        if role_of_dtype(dtype) is Role.SHARED:
            block = rows.values(0, dtype, model, schema, start, stop)
            if not np.abs(block).max() <= np.finfo(block.dtype).max / 4:  # also False for NaN
                return False
    return True
