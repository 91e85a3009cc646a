"""Means over blocks of weights, and the dtypes numpy cannot compute with.

Only elementwise operations: each is correctly rounded by IEEE 754, so the same models in the same
order give the same bits on every machine, whatever its BLAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def weighted_mean(blocks: Sequence[NDArray[Any]], weights: Sequence[float], out: NDArray[Any]) -> None:
    """out = sum_j w_j W_j over 1-D float blocks of equal length, for weights that sum to 1.

    Computed as W_0 - sum_j w_j (W_0 - W_j): when all blocks are equal the sum is +0 and out is W_0 to
    the bit, negative zeros included. `out` must not alias a block. ValueError without blocks.
    """
    if not blocks:
        raise ValueError("a mean of nothing")
    reference, rest = blocks[0], blocks[1:]
    if not rest:
        np.copyto(out, reference)
        return
    np.subtract(reference, rest[0], out=out)
    out *= float(weights[1])
    scratch = np.empty_like(out) if len(rest) > 1 else out
    for block, weight in zip(rest[1:], weights[2:], strict=True):
        np.subtract(reference, block, out=scratch)
        scratch *= float(weight)
        out += scratch
    np.subtract(reference, out, out=out)


def widen(dtype: str, block: NDArray[Any], out: NDArray[np.float32]) -> None:
    """float16, or bfloat16 given as uint16 bits, to float32: exact."""
    if dtype == "BF16":
        np.left_shift(block, 16, out=out.view(np.uint32), dtype=np.uint32, casting="safe")
    else:
        np.copyto(out, block)


def narrow(dtype: str, block: NDArray[np.float32], out: NDArray[Any]) -> None:
    """Finite float32 to float16, or to bfloat16 as uint16 bits: to nearest, ties to even. Reverses `widen`."""
    if dtype == "BF16":
        bits = block.view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        np.copyto(out, rounded >> np.uint32(16), casting="unsafe")
    else:
        np.copyto(out, block, casting="same_kind")
