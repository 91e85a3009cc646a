"""A torch module bound to one flat buffer, so that its weights are read and written as one block of bytes.

On the CPU the module's parameters and buffers become views of that buffer: nothing is copied to publish
or to merge. Elsewhere, and for any tensor that the module has since replaced, values are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braintorrent.errors import ConfigError
from braintorrent.weights.flat import Weights
from braintorrent.weights.schema import Role, Schema, TensorSpec, role_of_dtype

TORCH_DTYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.uint32: "U32",
    torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

RoleOf = Callable[[str, str], str]
"""(tensor name, role its dtype suggests) -> "shared", "counter" or "personal"; see methods.Method.role."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lives in the module. Looked up at each use: modules may put a new tensor there."""

    tensors: dict[str, Tensor | None]
    key: str

    @property
    def tensor(self) -> Tensor:
        tensor = self.tensors[self.key]
        assert tensor is not None
        return tensor.detach()


class FlatModel:
    """`module`'s parameters and persistent buffers by role. Tied tensors travel once, under their first name.

    schema: the travelling tensors; personal: name -> tensor of those that stay (for checkpoints).
    ConfigError if a travelling tensor has a dtype safetensors does not carry, or a role that does not fit it,
    or if nothing travels.
    """

    def __init__(self, module: nn.Module, role_of: RoleOf = lambda _name, role: role) -> None:
        self.module = module
        self._travelling: dict[str, list[_Place]] = {}  # more than one place: tied
        self._personal: dict[str, _Place] = {}
        specs: list[TensorSpec] = []
        for name, places in _tensors(module).items():
            tensor = places[0].tensor
            dtype = TORCH_DTYPES.get(tensor.dtype, str(tensor.dtype))
            role = role_of(name, role_of_dtype(dtype))
            if role == Role.PERSONAL:
                self._personal[name] = places[0]
            else:
                self._travelling[name] = places
                specs.append(_spec(name, dtype, tuple(tensor.shape), role))
        self.schema = Schema.of(specs)
        if not self.schema.nbytes:
            raise ConfigError("network: every tensor is personal or empty, so there is nothing to learn together")
        self._weights = Weights(self.schema)
        flat = torch.from_numpy(self._weights.buffer)
        self._views = {}
        for name, (spec, start) in self.schema.slots.items():
            like = self._travelling[name][0].tensor
            self._views[name] = flat[start : start + spec.nbytes].view(like.dtype).reshape(like.shape)
        self.weights()
        self._bind()

    @torch.no_grad()
    def _bind(self) -> None:
        for name, places in self._travelling.items():
            for place in places:
                if (tensor := place.tensors[place.key]) is not None and tensor.device.type == "cpu":
                    tensor.data = self._views[name]

    @property
    def personal(self) -> dict[str, Tensor]:
        """The tensors that never leave this lab, in place."""
        return {name: place.tensor for name, place in self._personal.items()}

    @torch.no_grad()
    def weights(self) -> Weights:
        """The module's current travelling values. On the CPU this is the live model's own memory."""
        for name, view in self._views.items():
            tensor = self._travelling[name][0].tensor
            if not _same_memory(tensor, view):
                view.copy_(tensor)
        return self._weights

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Put these values into the module. ValueError if their schema is another."""
        if weights is not self._weights:
            self._weights.copy_from(weights)
        for name, view in self._views.items():
            for place in self._travelling[name]:
                if not _same_memory(tensor := place.tensor, view):
                    tensor.copy_(view)


def _tensors(module: nn.Module) -> dict[str, list[_Place]]:
    """First name -> all places of each parameter and persistent buffer; equal memory is one tensor, tied."""
    found: dict[str, list[_Place]] = {}
    names: dict[object, str] = {}
    for name, place in _places(module):
        tensor = place.tensor
        memory: object = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        if tensor.numel() == 0 or tensor.device.type == "meta":
            memory = id(place.tensors[place.key])
        found.setdefault(names.setdefault(memory, name), []).append(place)
    return found


def _places(module: nn.Module) -> Iterator[tuple[str, _Place]]:
    for prefix, owner in module.named_modules():
        transient = owner._non_persistent_buffers_set
        for tensors in (owner._parameters, owner._buffers):
            for key, tensor in tensors.items():
                if tensor is not None and not (tensors is owner._buffers and key in transient):
                    yield f"{prefix}.{key}" if prefix else key, _Place(tensors, key)  # type: ignore[arg-type]


def _spec(name: str, dtype: str, shape: tuple[int, ...], role: str) -> TensorSpec:
    try:
        return TensorSpec(name, dtype, shape, Role(role))
    except ValueError as error:
        raise ConfigError(f"network: {error}") from None


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.device == b.device and a.stride() == b.stride() and a.dtype == b.dtype
