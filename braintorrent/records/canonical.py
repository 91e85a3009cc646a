"""Canonical bytes: msgpack of plain values, one encoding per value, and a strict way back."""

from __future__ import annotations

import re
from typing import Any

import msgpack
from blake3 import blake3

from braintorrent.errors import BadMessage

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest(data: bytes | memoryview) -> str:
    """BLAKE3 of `data` as 64 lower-case hex digits."""
    return blake3(data).hexdigest()


def pack(value: Any) -> bytes:
    """Canonical bytes. Callers pass lists, not dicts, so that there is no key order to disagree on."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes, cap: int) -> Any:
    """The value of canonical bytes, at most `cap` long; BadMessage if re-packing would differ."""
    if len(data) > cap:
        raise BadMessage(f"{len(data)} bytes where at most {cap} are allowed", reason="too-large")
    try:
        value = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_str_len=cap, max_bin_len=cap, max_array_len=cap, max_map_len=0,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises ValueError, its own classes, and RecursionError on depth
        raise BadMessage(f"not canonical msgpack: {type(error).__name__}") from None
    if pack(value) != data:
        raise BadMessage("not the canonical encoding")
    return value
