"""Tensors by role, their agreed layout, flat buffers, and arithmetic by blocks. numpy only.

schema.py      which tensors travel, and the canonical safetensors header they travel under
flat.py        one model's values in one buffer
arithmetic.py  means over blocks
modules.py     a torch module bound to such a buffer (imports torch; import it by name)
"""

from braintorrent.weights.arithmetic import narrow, weighted_mean, widen
from braintorrent.weights.flat import Weights
from braintorrent.weights.schema import Role, Run, Schema, TensorSpec, role_of_dtype

__all__ = ["Role", "Run", "Schema", "TensorSpec", "Weights", "narrow", "role_of_dtype", "weighted_mean", "widen"]
