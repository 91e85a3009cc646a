"""Training interrupted inside a version, as one safetensors file: a kill costs minutes, not a night.

Tensors: "meta" (JSON as bytes), "weights" (the flat buffer), "state.NAME" (what the learner wants back),
"seal" (BLAKE3 of the others, so that a damaged file is told from a good one). A checkpoint is only ever
a help: one that cannot be used is ignored, with a reason, and training starts from the last version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from braintorrent.protocol.version import Version
from braintorrent.storage.files import write_atomically
from braintorrent.weights import Schema, TensorSpec, Weights, role_of_dtype
from braintorrent.weights.schema import DTYPES

FORMAT = 1
_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood.

    base: the newest own version when it was taken, NOTHING before the first; pending: what the next
    publication must tell, JSON-able; weights and state: the learner's.
    """

    base: Version
    weights: Weights
    state: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    pending: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path`, durable on return. StorageFull leaves the one before."""
    weights = checkpoint.weights
    meta = {"format": FORMAT, "base": checkpoint.base, "schema": weights.schema.digest, "pending": checkpoint.pending}
    tensors: dict[str, NDArray[Any]] = {
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
        "weights": weights.buffer,
        **{f"state.{name}": np.asarray(array, order="C") for name, array in checkpoint.state.items()},
    }
    tensors["seal"] = _seal(tensors)
    layout = Schema.of(_spec(name, array) for name, array in tensors.items())
    write_atomically(path, layout.header, *(_bytes(tensors[s.name]) for s in layout.tensors if s.nbytes))


def load_checkpoint(path: Path, schema: Schema) -> tuple[Checkpoint | None, str]:
    """The checkpoint at `path`, or None and the reason, in words for the log; no reason if there is none."""
    if not path.exists():
        return None, ""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta = json.loads(tensors["meta"].tobytes())
        if meta["format"] != FORMAT:  # before the seal, which another format may have made otherwise
            return None, f"{path}: format {meta['format']}; this release of braintorrent reads {FORMAT}"
        if tensors.pop("seal").tobytes() != _seal(tensors).tobytes():
            return None, f"{path}: damaged"
        if meta["schema"] != schema.digest:
            return None, f"{path}: of another network"
        weights = Weights(schema)
        np.copyto(weights.buffer, tensors["weights"])
        state = {name.removeprefix("state."): array for name, array in tensors.items() if name.startswith("state.")}
        incarnation, counter = meta["base"]
        return Checkpoint(Version(int(incarnation), int(counter)), weights, state, meta["pending"]), ""
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        return None, f"{path}: not a checkpoint ({type(error).__name__}: {error})"


def _seal(tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    hasher = blake3()
    for name in sorted(tensors):
        array = tensors[name]
        hasher.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hasher.update(_bytes(array))
    return np.frombuffer(hasher.digest(), np.uint8)


def _spec(name: str, array: NDArray[Any]) -> TensorSpec:
    dtype = _NAMES.get(array.dtype, str(array.dtype))
    return TensorSpec(name, dtype, array.shape, role_of_dtype(dtype))


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
