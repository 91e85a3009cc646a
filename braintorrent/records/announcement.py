"""Signed announcements: an envelope (envelope.py) around the fields below, so that a third peer can relay them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintorrent.errors import BadMessage
from braintorrent.protocol.messages import MAX_ANNOUNCEMENT_BYTES, Announcement
from braintorrent.protocol.version import MAX_FIELD, Version
from braintorrent.records.canonical import pack
from braintorrent.records.envelope import open_envelope, sign_envelope
from braintorrent.records.identity import Identity

FORMAT = 1
CONTEXT = b"braintorrent announcement 1\0"
MAX_RECORD_BYTES = 4 << 20

Digest = Field(pattern=r"^[0-9a-f]{64}$")


class _Body(BaseModel):
    """The signed fields, in wire order, with their bounds."""

    model_config = ConfigDict(strict=True, extra="forbid")

    federation: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")
    incarnation: int = Field(ge=1, le=MAX_FIELD)
    counter: int = Field(ge=1, le=MAX_FIELD)
    content: str = Digest
    samples: int = Field(ge=1, le=10**12)
    steps: int = Field(ge=0, le=10**12)
    seconds: float = Field(ge=0, le=1e12, allow_inf_nan=False)
    schema_: str = Digest
    record: str = Digest
    record_size: int = Field(ge=1, le=MAX_RECORD_BYTES)
    final: bool


_NAMES = tuple(_Body.model_fields)


def _body(announcement: Announcement) -> list[Any]:
    a = announcement
    return [
        a.federation, a.version.incarnation, a.version.counter, a.content, a.samples, a.steps,
        float(a.seconds), a.schema, a.record, a.record_size, a.final,
    ]  # fmt: skip


def sign_announcement(identity: Identity, announcement: Announcement) -> Announcement:
    """`announcement` with its exact signed bytes in `raw`. Its author must be `identity`."""
    if announcement.author != identity.id:
        raise ValueError("an announcement is signed by its author")
    _Body.model_validate(dict(zip(_NAMES, _body(announcement), strict=True)))
    raw = sign_envelope(identity, FORMAT, CONTEXT, _body(announcement))
    if len(raw) > MAX_ANNOUNCEMENT_BYTES:
        raise ValueError(f"announcement of {len(raw)} bytes")
    return replace(announcement, raw=raw)


def open_announcement(raw: bytes) -> Announcement:
    """Verify signed bytes and return their statement; BadMessage with a reason otherwise."""
    author, values = open_envelope(raw, FORMAT, CONTEXT, MAX_ANNOUNCEMENT_BYTES, "an announcement")
    if len(values) != len(_NAMES):
        raise BadMessage("not an announcement body")
    try:
        b = _Body.model_validate(dict(zip(_NAMES, values, strict=True)))
    except ValidationError as error:
        raise BadMessage(f"announcement field {error.errors()[0]['loc'][0]} is out of bounds") from None
    announcement = Announcement(
        b.federation, author, Version(b.incarnation, b.counter), b.content, b.samples, b.steps,
        b.seconds, b.schema_, b.record, b.record_size, b.final, raw=raw,
    )  # fmt: skip
    if pack(_body(announcement)) != pack(values):
        raise BadMessage("announcement with an integer where a float is due")
    return announcement
