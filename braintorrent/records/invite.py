"""Invites: one word that a lab gives to another, so that the two trust each other.

    "bt1-" base32( length(2) | msgpack [peer, federation, secret, expires, addresses, name] | checksum(5) )

The secret is the seed of an Ed25519 key, used once: whoever can sign with it holds the code. The inviter keeps
only the hash of its public half, so that a stolen list of invites lets nobody in.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from dataclasses import dataclass
from typing import Annotated

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from braintorrent.errors import BadMessage, ConfigError
from braintorrent.protocol.version import MAX_FIELD
from braintorrent.records.canonical import pack, unpack
from braintorrent.records.identity import Identity

PREFIX = "bt1-"
SECRET_BYTES = 16
LENGTH_BYTES, CHECKSUM_BYTES = 2, 5
MAX_INVITE_BYTES = 2048  # 8 addresses of 128 characters, and all else, with room to spare
_KEY = "BrainTorrent 2026 key of an invite"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz234567")


@dataclass(frozen=True, slots=True)
class Invite:
    """What a code says. peer: who invites; name: of the invited lab; addresses: where the inviter listens."""

    peer: str
    federation: str
    secret: bytes
    expires_unix: int
    addresses: tuple[str, ...]
    name: str

    @property
    def key(self) -> Identity:
        """The one-time key, whose id names this invite."""
        return Identity(Ed25519PrivateKey.from_private_bytes(blake3(self.secret, derive_key_context=_KEY).digest()))


class _Fields(BaseModel):
    """The fields in their order, with their bounds; scalars are strict, lists become tuples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peer: Annotated[bytes, Strict(), Field(min_length=32, max_length=32)]
    federation: Annotated[str, Strict(), Field(pattern=r"^[a-z0-9-]{1,64}$")]
    secret: Annotated[bytes, Strict(), Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    expires_unix: Annotated[int, Strict(), Field(ge=0, le=MAX_FIELD)]
    addresses: Annotated[
        tuple[Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9.:\[\]-]{3,128}$")], ...], Field(max_length=8)
    ]
    name: Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


def new_secret() -> bytes:
    """Fresh random bytes for one invite: 128 bits, so that nobody guesses."""
    return secrets.token_bytes(SECRET_BYTES)


def encode_invite(invite: Invite) -> str:
    """The code, one word of lower-case letters and digits after its prefix; ValueError if a field is out of bounds."""
    peer = base64.b32decode(invite.peer.upper() + "====")
    values = [peer, invite.federation, invite.secret, invite.expires_unix, list(invite.addresses), invite.name]
    _Fields.model_validate(dict(zip(_Fields.model_fields, values, strict=True)))
    body = pack(values)
    payload = (LENGTH_BYTES + len(body) + CHECKSUM_BYTES).to_bytes(LENGTH_BYTES, "big") + body
    return PREFIX + _base32(payload + _checksum(payload))


def decode_invite(text: str, now: float | None = None) -> Invite:
    """What a code says, spaces, line breaks and capitals forgiven; ConfigError names what is wrong with it.

    now: Unix seconds, against which it expires; this machine's clock if not given.
    """
    body = _body(text)
    try:
        values = unpack(body, MAX_INVITE_BYTES)
        if not isinstance(values, list) or len(values) != len(_Fields.model_fields):
            raise BadMessage("not the fields of an invite")
        fields = _Fields.model_validate(dict(zip(_Fields.model_fields, values, strict=True)))
    except (BadMessage, ValidationError):  # its checksum holds: nobody mistyped it
        raise ConfigError("this code was made by another release of braintorrent, or by no release") from None
    late = (time.time() if now is None else now) - fields.expires_unix
    if late >= 0:
        raise ConfigError(f"this code expired {_ago(late)}; ask for a new one: braintorrent invite {fields.name}")
    return Invite(
        _base32(fields.peer), fields.federation, fields.secret, fields.expires_unix, fields.addresses, fields.name
    )


def _body(text: str) -> bytes:
    """The bytes between length and checksum, if both hold."""
    word = "".join(text[: 8 * MAX_INVITE_BYTES].split()).lower()
    if not word.startswith(PREFIX):
        raise ConfigError(
            f"this is no invite: a code begins with {PREFIX}; copy all that `braintorrent invite` printed"
        )
    letters = word.removeprefix(PREFIX)
    for position, letter in enumerate(letters, len(PREFIX) + 1):
        if letter not in _LETTERS:
            raise ConfigError(f"this code is mistyped: {letter!a} at position {position}; it has a-z and 2-7 only")
    try:
        data = base64.b32decode(letters.upper() + "=" * (-len(letters) % 8))
    except binascii.Error:
        raise ConfigError(f"this code is cut: {len(letters)} letters cannot be all; copy it again") from None
    claimed = int.from_bytes(data[:LENGTH_BYTES], "big")
    if len(data) != claimed or len(data) > MAX_INVITE_BYTES:
        what = "cut" if len(data) < claimed else "too long"
        raise ConfigError(f"this code is {what} or mistyped: {len(data)} bytes where {claimed} belong; copy it again")
    payload, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if _checksum(payload) != checksum or _base32(data) != letters:
        raise ConfigError("this code is mistyped: its checksum does not hold; copy it again")
    return payload[LENGTH_BYTES:]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _checksum(payload: bytes) -> bytes:
    return blake3(payload).digest(CHECKSUM_BYTES)


def _ago(seconds: float) -> str:
    if seconds < 60:
        return "just now"
    return f"{seconds / 3600:.0f} hours ago" if seconds >= 7200 else f"{seconds / 60:.0f} minutes ago"
