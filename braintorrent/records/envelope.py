"""What is signed, as bytes: [format, public key, body, signature], signed over a context and the body.

The public key travels along: whoever relays the bytes, their author is the hash of that key, and nobody else
can produce the signature. The context keeps a signature over one kind of statement from being valid as another.
"""

from __future__ import annotations

from typing import Any

from braintorrent.errors import BadMessage
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.identity import Identity, peer_id, verify


def sign_envelope(identity: Identity, fmt: int, context: bytes, values: list[Any]) -> bytes:
    """The signed bytes of `values`: lists and scalars."""
    body = pack(values)
    return pack([fmt, identity.public_key, body, identity.sign(context + body)])


def open_envelope(raw: bytes, fmt: int, context: bytes, cap: int, what: str) -> tuple[str, list[Any]]:
    """(author's peer id, values) of verified bytes, at most `cap` of them; BadMessage, naming `what`, otherwise."""
    match unpack(raw, cap):
        case [int(found), bytes(key), bytes(body), bytes(signature)] if len(key) == 32:
            pass
        case _:
            raise BadMessage(f"not {what}")
    if type(found) is not int or found != fmt:
        raise BadMessage(f"{what} of format {found}; this release reads {fmt}", reason="format")
    verify(key, signature, context + body)
    values = unpack(body, cap)
    if not isinstance(values, list):
        raise BadMessage(f"not the body of {what}")
    return peer_id(key), values
