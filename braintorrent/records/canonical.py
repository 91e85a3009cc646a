"""Canonical bytes: msgpack of plain values, one encoding per value, and a strict way back."""

from __future__ import annotations

import re
from typing import Any

import msgpack

from braintorrent.errors import BadMessage

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
MAX_DEPTH = 8  # lists within lists; the deepest message has 4
MAX_ITEMS = 1 << 17  # values in one message; a record of MAX_RECORD_BYTES holds at most 65536 chunk digests

_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}


def pack(value: Any) -> bytes:
    """Canonical bytes. Callers pass lists, not dicts, so that there is no key order to disagree on."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes, cap: int) -> Any:
    """The value of canonical bytes, at most `cap` long; BadMessage if re-packing would differ."""
    if len(data) > cap:
        raise BadMessage(f"{len(data)} bytes where at most {cap} are allowed", reason="too-large")
    _check_shape(data)
    try:
        value = msgpack.unpackb(data, raw=False, max_str_len=cap, max_bin_len=cap, max_array_len=cap)
    except ValueError as error:  # text that is not UTF-8; the shape is sound by now
        raise BadMessage(f"not canonical msgpack: {type(error).__name__}") from None
    if pack(value) != data:
        raise BadMessage("not the canonical encoding")
    return value


def _check_shape(data: bytes) -> None:
    """BadMessage unless `data` is one whole msgpack value of lists and scalars within the caps above.

    msgpack allocates a list of the length its header claims before it reads an item, at every depth:
    5 bytes can cost megabytes, and 5 more the same again. So claims are checked before it sees them.
    """
    at, end, items = 0, len(data), 0
    waiting = [1]  # values still to come in each open list
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        waiting[-1] -= 1
        items += 1
        if at >= end or items > MAX_ITEMS:
            raise BadMessage("cut short, or more values than allowed")
        head = data[at]
        at += 1
        if head < 0x80 or head >= 0xE0:
            continue
        if 0xA0 <= head < 0xC0:
            at += head & 0x1F
        elif head in _FIXED:
            at += _FIXED[head]
        elif head in _SIZED:
            width = _SIZED[head]
            at += width + int.from_bytes(data[at : at + width], "big")
        elif 0x90 <= head < 0xA0 or head in _LISTS:
            width = _LISTS.get(head, 0)
            count = int.from_bytes(data[at : at + width], "big") if width else head & 0x0F
            at += width
            if count > end - at or len(waiting) > MAX_DEPTH:
                raise BadMessage("a list longer than its bytes, or lists nested too deep")
            waiting.append(count)
        else:
            raise BadMessage(f"msgpack type {head:#04x} has no place in a message")
    if at != end:
        raise BadMessage("cut short, or bytes left over")
