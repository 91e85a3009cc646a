"""Notices as signed bytes, at most MAX_NOTICE_BYTES: an envelope (envelope.py) around [kind, fields ...].

A rotation is signed by the old key, and has a signature of the new one among its fields. A proof is no envelope but
[format, first, second], two announcements: their own signatures convict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from braintorrent.errors import BadMessage
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.notices import (
    MAX_NOTICE_BYTES,
    MAX_ROTATIONS,
    Introduction,
    Notice,
    Proof,
    Revocation,
    Rotation,
)
from braintorrent.protocol.version import MAX_FIELD
from braintorrent.records.announcement import open_announcement
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.envelope import open_envelope, sign_envelope
from braintorrent.records.identity import Identity, is_peer_id, peer_id, verify

FORMAT = 1
CONTEXT = b"braintorrent notice 1\0"
ROTATION = b"braintorrent rotation 1\0"  # what the new key signs
MAX_WHY_CHARS = 120
MAX_NOTICE_ADDRESSES = 4

__all__ = [
    "Introduction",
    "Notice",
    "Proof",
    "Revocation",
    "Rotation",
    "encode_chain",
    "open_chain",
    "open_notice",
    "prove",
    "rotation",
    "sign_notice",
]


def _peer(text: str) -> str:
    if not is_peer_id(text):
        raise ValueError("not a peer id")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control or format characters")
    return text


class _Fields(BaseModel):
    """A notice's fields in wire order, with their bounds. Scalars are strict, lists become tuples."""

    model_config = ConfigDict(extra="forbid")

    federation: Annotated[str, Field(strict=True, pattern=r"^[a-z0-9-]{1,64}$")]


class _About(_Fields):
    peer: Annotated[str, Field(strict=True), AfterValidator(_peer)]
    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class _Introduction(_About):
    addresses: Annotated[
        tuple[Annotated[str, Field(strict=True, pattern=r"^[\x21-\x7e]{1,128}$")], ...],
        Field(max_length=MAX_NOTICE_ADDRESSES),
    ]
    unix_ms: Annotated[int, Field(strict=True, ge=0, le=MAX_FIELD)]


class _Revocation(_About):
    why: Annotated[str, Field(strict=True, max_length=MAX_WHY_CHARS), AfterValidator(_printable)]
    unix_ms: Annotated[int, Field(strict=True, ge=0, le=MAX_FIELD)]


class _Rotation(_Fields):
    key: Annotated[bytes, Field(strict=True, min_length=32, max_length=32)]
    unix_ms: Annotated[int, Field(strict=True, ge=0, le=MAX_FIELD)]
    signature: Annotated[bytes, Field(strict=True, min_length=64, max_length=64)]


KINDS: dict[str, type[_Fields]] = {  # what stands after the kind, in order
    "introduction": _Introduction, "revocation": _Revocation, "rotation": _Rotation,
}  # fmt: skip
N = TypeVar("N", bound=Introduction | Revocation)


def sign_notice(identity: Identity, notice: N) -> N:
    """`notice` with its exact signed bytes in `raw`. Its author must be `identity`; ValueError if out of bounds."""
    if notice.author != identity.id:
        raise ValueError("a notice is signed by its author")
    kind = type(notice).__name__.lower()
    values = [getattr(notice, name) for name in KINDS[kind].model_fields]
    return replace(notice, raw=_checked(sign_envelope(identity, FORMAT, CONTEXT, [kind, *values])))


def rotation(old: Identity, new: Identity, federation: str, unix_ms: int) -> Rotation:
    """The word of both keys that the peer of one goes on as the peer of the other."""
    proof = new.sign(_new_key_signs(old.id, federation, unix_ms))
    raw = sign_envelope(old, FORMAT, CONTEXT, ["rotation", federation, new.public_key, unix_ms, proof])
    return Rotation(federation, old.id, new.id, unix_ms, _checked(raw))


def encode_chain(chain: Sequence[Rotation]) -> bytes:
    """How a lab came to its key, as it shows that to those who know an older one; empty without any."""
    return pack([rotation.raw for rotation in chain]) if chain else b""


def open_chain(data: bytes) -> list[Rotation]:
    """Undo `encode_chain`; BadMessage unless it is at most MAX_ROTATIONS, each of the key before."""
    found: Any = unpack(data, MAX_ROTATIONS * MAX_NOTICE_BYTES)
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_ROTATIONS:
        raise BadMessage("not a chain of rotations")
    chain = [open_notice(raw) for raw in found if isinstance(raw, bytes)]
    rotations = [notice for notice in chain if isinstance(notice, Rotation)]
    if len(rotations) != len(found) or any(a.peer != b.author for a, b in pairwise(rotations)):
        raise BadMessage("not a chain of rotations")
    return rotations


def prove(first: Announcement, second: Announcement) -> Proof:
    """Two contents for one version, as a notice; ValueError if they are not."""
    first, second = sorted((first, second), key=lambda a: a.raw)  # one pair, one encoding
    raw = _checked(pack([FORMAT, first.raw, second.raw]))
    return Proof(first, second, raw)


def open_notice(raw: bytes) -> Notice:
    """Verify bytes and return their notice; BadMessage with a reason otherwise."""
    body: Any = unpack(raw, MAX_NOTICE_BYTES)
    match body:
        case [int(fmt), bytes(first), bytes(second)]:
            if type(fmt) is not int or fmt != FORMAT:
                raise BadMessage(f"a proof of format {fmt}; this release reads {FORMAT}", reason="format")
            return _opened_proof(raw, open_announcement(first), open_announcement(second))
    author, values = open_envelope(raw, FORMAT, CONTEXT, MAX_NOTICE_BYTES, "a notice")
    if not values or not isinstance(values[0], str) or values[0] not in KINDS:
        raise BadMessage("a notice of no known kind")
    model = KINDS[values[0]]
    if len(values) != 1 + len(model.model_fields):
        raise BadMessage(f"not the body of a notice of {values[0]}")
    try:
        fields = model.model_validate(dict(zip(model.model_fields, values[1:], strict=True)))
    except ValidationError as error:
        raise BadMessage(f"notice of {values[0]}: {error.errors()[0]['loc'][0]} is out of bounds") from None
    notice = _opened(raw, author, fields)
    if notice.peer == author:
        raise BadMessage("a notice of a lab about itself")
    return notice


def _opened(raw: bytes, author: str, f: Any) -> Introduction | Revocation | Rotation:
    if isinstance(f, _Rotation):
        verify(f.key, f.signature, _new_key_signs(author, f.federation, f.unix_ms))
        return Rotation(f.federation, author, peer_id(f.key), f.unix_ms, raw)
    if isinstance(f, _Revocation):
        return Revocation(f.federation, author, f.peer, f.name, f.why, f.unix_ms, raw)
    return Introduction(f.federation, author, f.peer, f.name, f.addresses, f.unix_ms, raw)


def _opened_proof(raw: bytes, first: Announcement, second: Announcement) -> Proof:
    one = (first.federation, first.author, first.version)
    if one != (second.federation, second.author, second.version) or first.content == second.content:
        raise BadMessage("a proof that proves nothing: not two contents for one version")
    if first.raw >= second.raw:
        raise BadMessage("a proof out of order")
    return Proof(first, second, raw)


def _new_key_signs(old: str, federation: str, unix_ms: int) -> bytes:
    return ROTATION + pack([federation, old, unix_ms])


def _checked(raw: bytes) -> bytes:
    """Bytes that others will read, or ValueError."""
    try:
        open_notice(raw)
    except BadMessage as error:
        raise ValueError(str(error)) from None
    return raw
