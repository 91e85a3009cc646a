"""Messages as bytes, and a strict way back: canonical msgpack lists, docs/protocol.md names every field.

Decoding takes any bytes of any peer and gives a value within the caps, or BadMessage with a reason, and
nothing else. Size is checked first, then shape (records.canonical), then fields, then signatures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from braintorrent.errors import BadMessage, Gone, Refused, RemoteError, Unreachable
from braintorrent.network import limits
from braintorrent.network.address import parse_address
from braintorrent.protocol.messages import (
    MAX_ADDRESSES,
    MAX_ANNOUNCEMENT_BYTES,
    MAX_HOLDS,
    MAX_TOLD,
    PHASES,
    PROTOCOLS,
    AskMessage,
    Protocols,
    TellMessage,
)
from braintorrent.protocol.notices import MAX_NOTICE_BYTES, MAX_NOTICES_TOLD
from braintorrent.protocol.version import MAX_FIELD, Version
from braintorrent.records import open_announcement
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.notice import open_notice

PROTOCOL = 1  # first item of each message but ask and tell, in all protocols: so that any two releases can say hello


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, and what it takes to be understood. Both sides say it, and both can name what differs.

    protocols: lowest and highest protocol this peer speaks. codecs: encodings of weights it reads.
    agreement: dotted key of federation.toml -> its value, see config.agreement. clock_ms: Unix time in milliseconds.
    addresses: where it listens, "host:port".
    """

    name: str
    federation: str
    protocols: Protocols = PROTOCOLS
    codecs: tuple[str, ...] = ("safetensors",)
    agreement: Mapping[str, str] = field(default_factory=dict)
    clock_ms: int = 0
    addresses: tuple[str, ...] = ()


def _dialable(text: str) -> str:
    if parse_address(text).port == 0:
        raise ValueError("port 0 cannot be dialled")
    return text


def ascending(rows: Sequence[Any]) -> Sequence[Any]:
    keys = [row[0] for row in rows]
    if any(a >= b for a, b in pairwise(keys)):
        raise ValueError("not in ascending order, or twice")
    return rows


Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict()]
Yes = Annotated[bool, Strict()]
Raw = Annotated[bytes, Strict(), Field(max_length=MAX_ANNOUNCEMENT_BYTES)]
RawNotice = Annotated[bytes, Strict(), Field(max_length=MAX_NOTICE_BYTES)]
PeerId = Annotated[Text, Field(pattern=r"^[a-z2-7]{52}$")]
Digest = Annotated[Text, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[Whole, Field(ge=0, le=MAX_FIELD)]
Protocol = Annotated[Whole, Field(ge=1, le=1 << 16)]
Phase = Annotated[Text, Field(pattern=f"^({'|'.join(PHASES)})$")]
Dialable = Annotated[Text, Field(max_length=limits.ADDRESS_CHARS), AfterValidator(_dialable)]
Dialables = Annotated[tuple[Dialable, ...], Field(max_length=limits.ADDRESSES_EACH)]
AgreementKey = Annotated[Text, Field(pattern=rf"^[\x21-\x7e]{{1,{limits.AGREEMENT_KEY_CHARS}}}$")]
AgreementValue = Annotated[Text, Field(pattern=rf"^[\x20-\x7e]{{1,{limits.AGREEMENT_VALUE_CHARS}}}$")]
Codec = Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Row(BaseModel):
    """A message's fields in wire order, after the protocol number. Scalars are strict; lists become tuples."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Hello(Row):
    name: Annotated[Text, Field(max_length=4 * limits.NAME_CHARS)]
    federation: Annotated[Text, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    protocols: tuple[Protocol, Protocol]
    codecs: Annotated[tuple[Codec, ...], Field(max_length=limits.CODECS)]
    agreement: Annotated[
        tuple[tuple[AgreementKey, AgreementValue], ...],
        Field(max_length=limits.AGREEMENT_KEYS),
        AfterValidator(ascending),
    ]
    clock_ms: Count
    addresses: Dialables


class _Ask(Row):
    newest: Raw | None
    holds: Annotated[tuple[tuple[PeerId, Count, Count], ...], Field(max_length=MAX_HOLDS), AfterValidator(ascending)]
    bucket: tuple[Annotated[Count, Field(lt=limits.BUCKETS)], Annotated[Count, Field(ge=1, le=limits.BUCKETS)]]
    phase: Phase
    notices: Annotated[Text, Field(pattern=r"^([0-9a-f]{64})?$")]


class _Tell(Row):
    announcements: Annotated[tuple[Raw, ...], Field(max_length=MAX_TOLD)]
    phase: Phase
    settled: Yes
    addresses: Annotated[
        tuple[tuple[PeerId, Dialables], ...], Field(max_length=MAX_ADDRESSES), AfterValidator(ascending)
    ]
    wants: Annotated[tuple[Digest, ...], Field(max_length=limits.WANTS)]
    notices: Annotated[tuple[RawNotice, ...], Field(max_length=MAX_NOTICES_TOLD)]


class _Error(Row):
    reason: Text
    detail: Text


def encode_hello(hello: Hello) -> bytes:
    """Canonical bytes; ValueError if the values break a cap the other side would hold against us."""
    agreement = sorted(hello.agreement.items())
    return encode_fields(
        _Hello, limits.HELLO_BYTES,
        [hello.name, hello.federation, hello.protocols, hello.codecs, agreement, hello.clock_ms, hello.addresses],
    )  # fmt: skip


def decode_hello(data: bytes) -> Hello:
    """A hello of whatever bytes, or BadMessage. Its name is safe to print."""
    h = decode_fields(_Hello, limits.HELLO_BYTES, data)
    if h.protocols[0] > h.protocols[1]:
        raise BadMessage("hello: the lowest protocol is above the highest")
    name = clean(h.name, limits.NAME_CHARS)
    return Hello(name, h.federation, h.protocols, h.codecs, dict(h.agreement), h.clock_ms, h.addresses)


def encode_ask(ask: AskMessage, protocol: int = PROTOCOL) -> bytes:
    """Canonical bytes of the protocol agreed on in hello; ValueError if the values break a cap."""
    holds = [[author, *version] for author, version in sorted(ask.holds.items())]
    newest = ask.newest.raw if ask.newest else None
    return encode_fields(_Ask, limits.ASK_BYTES, [newest, holds, ask.bucket, ask.phase, ask.notices], protocol)


def decode_ask(data: bytes, asker: str, protocol: int = PROTOCOL) -> AskMessage:
    """An ask of whatever bytes `asker` sent, or BadMessage. Its announcement is verified and the asker's own."""
    a = decode_fields(_Ask, limits.ASK_BYTES, data, protocol)
    if a.bucket[0] >= a.bucket[1]:
        raise BadMessage("ask: no such bucket")
    newest = open_announcement(a.newest) if a.newest is not None else None
    if newest is not None and newest.author != asker:
        raise BadMessage("ask: the newest announcement is not the asker's own", reason="author")
    holds = {author: Version(incarnation, counter) for author, incarnation, counter in a.holds}
    return AskMessage(newest, holds, a.bucket, a.phase, a.notices)


def encode_tell(tell: TellMessage, protocol: int = PROTOCOL) -> bytes:
    """Canonical bytes of the protocol agreed on in hello; ValueError if the values break a cap."""
    announcements = [a.raw for a in tell.announcements]
    addresses = sorted(tell.addresses.items())
    notices = [notice.raw for notice in tell.notices]
    values = [announcements, tell.phase, tell.settled, addresses, tell.wants, notices]
    return encode_fields(_Tell, limits.TELL_BYTES, values, protocol)


def decode_tell(data: bytes, protocol: int = PROTOCOL) -> TellMessage:
    """A tell of whatever bytes, or BadMessage. Its announcements and notices are verified."""
    t = decode_fields(_Tell, limits.TELL_BYTES, data, protocol)
    announcements = tuple(open_announcement(raw) for raw in t.announcements)
    notices = tuple(open_notice(raw) for raw in t.notices)
    return TellMessage(announcements, t.phase, t.settled, dict(t.addresses), t.wants, notices)


def encode_error(reason: str, detail: str) -> bytes:
    """Why a request was declined, cut to its cap."""
    return pack([PROTOCOL, reason, clean(detail, limits.DETAIL_CHARS)])


def decode_error(data: bytes) -> tuple[str, str]:
    """Reason (a lower-case word) and detail of a declined request, safe to print; BadMessage if they are neither."""
    error = decode_fields(_Error, limits.ERROR_BYTES, data)
    if not re.fullmatch(r"[a-z][a-z-]{0,31}", error.reason):
        raise BadMessage("error: the reason is not a word")
    return error.reason, clean(error.detail, limits.DETAIL_CHARS)


def clean(text: str, cap: int) -> str:
    """Foreign text made safe for a terminal: no control, format or line-breaking characters, at most `cap` long."""
    return "".join(c for c in text[: 4 * cap] if c.isprintable())[:cap]


def line(error: Exception) -> str:
    """An error in one line; it may quote the remote's bytes."""
    return clean(str(error), limits.DETAIL_CHARS) or type(error).__name__


def fault(status: int, body: bytes) -> RemoteError:
    """What a declined request's answer says is wrong, in the kind its status stands for."""
    if status < 400:
        return BadMessage(f"status {status} where an answer was due", reason="status")
    try:
        reason, detail = decode_error(body)
    except BadMessage:
        reason, detail = None, f"HTTP status {status}"
    kind: type[RemoteError] = Refused
    if status in (408, 429) or status >= 500:
        kind = Unreachable
    elif status == 404:
        kind = Gone
    return kind(detail, reason=reason)


R = TypeVar("R", bound=Row)


def encode_fields(model: type[Row], cap: int, values: list[Any], protocol: int = PROTOCOL) -> bytes:
    model.model_validate(dict(zip(model.model_fields, values, strict=True)))
    data = pack([protocol, *values])
    if len(data) > cap:
        raise ValueError(f"{model.__name__.strip('_').lower()}: {len(data)} bytes where at most {cap} are allowed")
    return data


def decode_fields(model: type[R], cap: int, data: bytes, protocol: int = PROTOCOL) -> R:
    what = model.__name__.strip("_").lower()
    values = unpack(data, cap)
    if not isinstance(values, list) or not values or type(values[0]) is not int:
        raise BadMessage(f"not a message, where {what} was due")
    if values[0] != protocol:
        raise BadMessage(f"{what} of protocol {values[0]}, where {protocol} was due", reason="protocol")
    if len(values) != 1 + len(model.model_fields):
        raise BadMessage(f"{what} with {len(values) - 1} fields instead of {len(model.model_fields)}")
    try:
        return model.model_validate(dict(zip(model.model_fields, values[1:], strict=True)))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        raise BadMessage(f"{what}: {where} is not allowed") from None
