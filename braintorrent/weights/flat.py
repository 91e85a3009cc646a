"""One model's travelling values in one contiguous buffer, laid out by its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braintorrent.records.content import chunk_digests, content_digest
from braintorrent.weights.schema import DTYPES, Schema, Slot, TensorSpec

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def aligned(nbytes: int) -> NDArray[np.uint8]:
    """`nbytes` bytes starting on a cache line. Pages are only taken from the system when touched."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


class Weights:
    """The shared and counter tensors of one model: `schema` and `buffer`, uint8 of schema.nbytes.

    The buffer may be the live model's own memory (see modules.FlatModel): copy before you keep it.
    """

    __slots__ = ("buffer", "schema")

    def __init__(self, schema: Schema, buffer: NDArray[np.uint8] | None = None) -> None:
        if buffer is None:
            buffer = aligned(schema.nbytes)
        if buffer.dtype != np.uint8 or buffer.shape != (schema.nbytes,) or not buffer.flags.c_contiguous:
            raise ValueError(f"weights need {schema.nbytes} contiguous bytes, got {buffer.dtype} {buffer.shape}")
        if buffer.ctypes.data % ALIGNMENT and schema.nbytes:
            raise ValueError(f"weights need memory aligned to {ALIGNMENT} bytes; use braintorrent.weights.flat.aligned")
        self.schema = schema
        self.buffer = buffer

    def view(self, name: str) -> NDArray[Any]:
        """The tensor `name`, in place. bfloat16 is shown as its bits, uint16. KeyError if it does not travel."""
        return self._view(self.schema.slots[name])

    def __iter__(self) -> Iterator[tuple[TensorSpec, NDArray[Any]]]:
        for slot in self.schema.slots.values():
            yield slot.spec, self._view(slot)

    def _view(self, slot: Slot) -> NDArray[Any]:
        spec, start = slot
        return self.buffer[start : start + spec.nbytes].view(DTYPES[spec.dtype]).reshape(spec.shape)

    def copy_from(self, other: Weights) -> None:
        """Take the values of `other`, which has the same schema; ValueError otherwise."""
        if other.schema.digest != self.schema.digest:
            raise ValueError(f"weights of schema {other.schema.digest[:12]} do not fit {self.schema.digest[:12]}")
        np.copyto(self.buffer, other.buffer)

    def copy(self) -> Weights:
        """The same values in memory of their own."""
        other = Weights(self.schema)
        other.copy_from(self)
        return other

    @property
    def parts(self) -> tuple[bytes, memoryview]:
        """The blob as two buffers, header and values: what is hashed, stored and sent."""
        return self.schema.header, self.buffer.data

    @property
    def digest(self) -> str:
        """Digest of the blob, 64 hex digits: the content digest of an announcement. Reads all values."""
        return content_digest(chunk_digests(self.parts))
