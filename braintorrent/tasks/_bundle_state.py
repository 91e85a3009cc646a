"""State dictionaries of optimisers and schedules as named arrays, and back: what a checkpoint stores, without pickle.

The tree is JSON; each tensor in it is a number into a list of byte arrays. What is neither tensor, number, text,
list nor dict (a function, a Counter) comes from the configuration and is left as it is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_SCALARS = (bool, int, float, str, type(None))


def pack(tree: Any) -> dict[str, NDArray[Any]]:
    """Arrays "tree" and "tensor.N" that hold `tree`, copied."""
    tensors: list[torch.Tensor] = []

    def walk(value: Any) -> dict[str, Any] | None:
        if isinstance(value, torch.Tensor):
            tensors.append(value.detach().cpu().contiguous())
            return {"tensor": len(tensors) - 1, "dtype": str(value.dtype).removeprefix("torch."), "shape": value.shape}
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, _SCALARS):
            return {"value": value}
        if isinstance(value, list | tuple):
            return {"list": [walk(item) for item in value]}
        if type(value) is dict:
            return {"dict": [(key, found) for key, item in value.items() if (found := walk(item)) is not None]}
        return None

    text = json.dumps(walk(tree)).encode()
    arrays: dict[str, NDArray[Any]] = {"tree": np.frombuffer(text, np.uint8)}
    for index, tensor in enumerate(tensors):
        arrays[f"tensor.{index}"] = tensor.reshape(-1).view(torch.uint8).numpy().copy()
    return arrays


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What was packed; a value that could not be is missing from its dict, or None in its list."""

    def walk(node: dict[str, Any] | None) -> Any:
        if node is None:
            return None
        if "tensor" in node:
            tensor = torch.empty(node["shape"], dtype=getattr(torch, node["dtype"]))
            tensor.reshape(-1).view(torch.uint8).numpy()[:] = arrays[f"tensor.{node['tensor']}"]
            return tensor
        if "list" in node:
            return [walk(item) for item in node["list"]]
        if "dict" in node:
            return {key: walk(item) for key, item in node["dict"]}
        return node["value"]

    return walk(json.loads(arrays["tree"].tobytes()))
