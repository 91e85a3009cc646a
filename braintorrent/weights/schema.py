"""Which tensors travel, and the one safetensors header they travel under.

Every blob of one schema is byte for byte `schema.header + data`. Both sides generate the header
themselves, so a peer's layout is verified by comparing bytes: nobody parses a stranger's JSON.
The layout is the one the safetensors library writes (https://github.com/huggingface/safetensors):
tensors by falling dtype alignment, then by name, without gaps, header padded to 8 bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from blake3 import blake3

# In the order in which the safetensors library lays tensors out. numpy has no bfloat16: its bits are uint16.
DTYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType({
    "U64": np.dtype("<u8"), "I64": np.dtype("<i8"), "F64": np.dtype("<f8"), "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "BF16": np.dtype("<u2"), "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
})  # fmt: skip
FLOATS = frozenset({"F64", "F32", "BF16", "F16"})
_RANK = {name: rank for rank, name in enumerate(DTYPES)}


class Role(StrEnum):
    """What becomes of a tensor in a merge."""

    SHARED = "shared"  # floating point: combined by the method
    COUNTER = "counter"  # whole numbers, such as num_batches_tracked: the maximum
    PERSONAL = "personal"  # never leaves this lab


def role_of_dtype(dtype: str) -> Role:
    """The role a dtype suggests: floating point is shared, whole numbers are counters."""
    return Role.SHARED if dtype in FLOATS else Role.COUNTER


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name, safetensors dtype ("F32"), shape and role."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: Role = Role.SHARED

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"tensor {self.name}: dtype {self.dtype} cannot travel; there are {', '.join(DTYPES)}")
        if self.role is not Role.PERSONAL and self.role is not role_of_dtype(self.dtype):
            raise ValueError(f"tensor {self.name}: {self.dtype} cannot be {self.role}; floats are shared")
        if self.name == "__metadata__":
            raise ValueError("a tensor cannot be called __metadata__: safetensors keeps that name for itself")

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class Slot(NamedTuple):
    """A tensor and where its values begin, in bytes from the start of the data."""

    spec: TensorSpec
    start: int


class Run(NamedTuple):
    """Neighbouring tensors of one dtype: bytes [start, stop) of the data."""

    dtype: str
    start: int
    stop: int


@dataclass(frozen=True)
class Schema:
    """The travelling tensors in wire order. Make one with `Schema.of`.

    header: the 8-byte length and the JSON; nbytes: bytes of all values; size: bytes of a blob;
    digest: BLAKE3 of header and roles, 64 hex digits, compared before the first byte of weights moves.
    """

    tensors: tuple[TensorSpec, ...]
    header: bytes = field(repr=False)
    nbytes: int
    digest: str
    slots: Mapping[str, Slot] = field(repr=False, compare=False)

    @classmethod
    def of(cls, specs: Iterable[TensorSpec]) -> Schema:
        """The schema of these tensors, personal ones left out. ValueError if a name appears twice."""
        tensors = tuple(sorted((s for s in specs if s.role is not Role.PERSONAL), key=_wire_order))
        slots: dict[str, Slot] = {}
        entries: dict[str, object] = {}
        position = 0
        for spec in tensors:
            if spec.name in slots:
                raise ValueError(f"two tensors are called {spec.name}")
            slots[spec.name] = Slot(spec, position)
            end = position + spec.nbytes
            entries[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": (position, end)}
            position = end
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        header = len(text).to_bytes(8, "little") + text
        roles = "\0".join(spec.role for spec in tensors).encode()
        digest = blake3(header + roles).hexdigest()
        return cls(tensors, header, position, digest, MappingProxyType(slots))

    @property
    def size(self) -> int:
        """Bytes of a blob: header and values."""
        return len(self.header) + self.nbytes

    @property
    def runs(self) -> list[Run]:
        """The data cut where the dtype changes, empty runs left out. Within a run only names differ."""
        runs: list[Run] = []
        for spec, start in self.slots.values():
            stop = start + spec.nbytes
            if runs and runs[-1].dtype == spec.dtype:
                start = runs.pop().start
            runs.append(Run(spec.dtype, start, stop))
        return [run for run in runs if run.stop > run.start]


def _wire_order(spec: TensorSpec) -> tuple[int, str]:
    return _RANK[spec.dtype], spec.name
