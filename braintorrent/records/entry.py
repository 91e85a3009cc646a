"""Entries of a ledger: what a lab did, signed, each with the digest of the one before it.

A body is a few named plain values: None, bool, int, float, text, bytes, and lists of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintorrent.errors import BadMessage
from braintorrent.protocol.version import MAX_FIELD
from braintorrent.records.content import digest
from braintorrent.records.envelope import open_envelope, sign_envelope
from braintorrent.records.identity import Identity

FORMAT = 1
CONTEXT = b"braintorrent ledger entry 1\0"
MAX_ENTRY_BYTES = 1 << 20  # a merge of thousands
FIRST = ""  # what the first entry has for the digest of the one before


class _Body(BaseModel):
    """The signed fields, in order, with their bounds; `body` as pairs in order of their names."""

    model_config = ConfigDict(strict=True, extra="forbid")

    sequence: int = Field(ge=1, le=MAX_FIELD)
    previous: str = Field(pattern=r"^([0-9a-f]{64})?$")
    unix_ms: int = Field(ge=0, le=MAX_FIELD)
    kind: str = Field(pattern=r"^[a-z]{1,32}$")
    body: list[Annotated[list[Any], Field(min_length=2, max_length=2)]]


_NAMES = tuple(_Body.model_fields)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as signed by `author`. sequence: from 1; previous: digest of the raw bytes of the entry before."""

    sequence: int
    previous: str
    unix_ms: int
    kind: str
    body: Mapping[str, Any]
    author: str
    raw: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """What the next entry has as `previous`."""
        return digest(self.raw)


def sign_entry(
    identity: Identity, sequence: int, previous: str, unix_ms: int, kind: str, body: Mapping[str, Any]
) -> Entry:
    """The entry with its exact signed bytes; ValueError if it is too large or a field out of bounds."""
    values = [sequence, previous, unix_ms, kind, [[name, body[name]] for name in sorted(body)]]
    raw = sign_envelope(identity, FORMAT, CONTEXT, values)
    try:
        return open_entry(raw)
    except BadMessage as error:
        raise ValueError(f"an entry of kind {kind}: {error}") from None


def open_entry(raw: bytes) -> Entry:
    """Verify signed bytes and return their entry; BadMessage otherwise. Its place in the chain is not checked."""
    author, values = open_envelope(raw, FORMAT, CONTEXT, MAX_ENTRY_BYTES, "a ledger entry")
    if len(values) != len(_NAMES):
        raise BadMessage("not the body of a ledger entry")
    try:
        b = _Body.model_validate(dict(zip(_NAMES, values, strict=True)))
        body = dict(b.body)
        names = list(body)
        if len(names) != len(b.body) or names != sorted(names) or not all(isinstance(name, str) for name in names):
            raise BadMessage("a ledger entry with names repeated or out of order")
    except ValidationError as error:
        raise BadMessage(f"ledger entry field {error.errors()[0]['loc'][0]} is out of bounds") from None
    except TypeError:
        raise BadMessage("a ledger entry with a name that is no text") from None
    return Entry(b.sequence, b.previous, b.unix_ms, b.kind, body, author, raw)
