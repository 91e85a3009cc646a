"""Joining by a code: what a lab without a place on the roster says to the one that invited it, and the answer.

    POST /v1/join    without a client certificate: JoinRequest in, Welcome out

The channel is one whose server certificate is that of the peer the code names; the request is an envelope of the
code's one-time key around an envelope of the joiner's own key. So the inviter knows that whoever asks holds the
code and that key, and a request means nothing at another peer. "look" uses nothing up, "join" the code.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

import aiohttp
from pydantic import AfterValidator, Field, ValidationError

from braintorrent.errors import BadMessage, RemoteError, Unreachable
from braintorrent.network import limits
from braintorrent.network.remote import check, dialable, look, pinned_session, read, stranger
from braintorrent.network.tls import client_context
from braintorrent.network.wire import (
    PROTOCOL,
    Count,
    Dialables,
    PeerId,
    Row,
    Text,
    ascending,
    decode_fields,
    encode_fields,
    line,
)
from braintorrent.records import Identity, Invite, short
from braintorrent.records.envelope import open_envelope, sign_envelope

STEPS = ("look", "join")
_JOINER = b"braintorrent join 1\0"
_HOLDER = b"braintorrent invite 1\0"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Verified: `joiner` holds its key and the code whose one-time key has the id `invite`; see Invite.key."""

    step: str
    federation: str
    inviter: str
    name: str
    addresses: tuple[str, ...]
    joiner: str = ""
    invite: str = ""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the inviter says of its federation. name: its own; federation: federation.toml as text.

    start: digest of the weights all begin from. members: (peer id, name, addresses) of others on its roster.
    clock_ms: Unix time there.
    """

    name: str
    federation: str
    start: str
    members: tuple[tuple[str, str, tuple[str, ...]], ...]
    clock_ms: int


Name = Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class _Join(Row):
    step: Annotated[Text, Field(pattern=f"^({'|'.join(STEPS)})$")]
    federation: Annotated[Text, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    inviter: PeerId
    name: Name
    addresses: Dialables


class _Welcome(Row):
    name: Name
    federation: Annotated[Text, Field(max_length=limits.FEDERATION_CHARS)]
    start: Annotated[Text, Field(pattern=r"^[0-9a-f]{64}$")]
    members: Annotated[
        tuple[tuple[PeerId, Name, Dialables], ...], Field(max_length=limits.MEMBERS), AfterValidator(ascending)
    ]
    clock_ms: Count


def encode_join(identity: Identity, invite: Invite, step: str, name: str, addresses: tuple[str, ...]) -> bytes:
    """The request of `identity`, who holds `invite`; ValueError if the values break a cap."""
    values = [step, invite.federation, invite.peer, name, addresses]
    _Join.model_validate(dict(zip(_Join.model_fields, values, strict=True)))
    joiner = sign_envelope(identity, PROTOCOL, _JOINER, values)
    return sign_envelope(invite.key, PROTOCOL, _HOLDER, [joiner])


def decode_join(data: bytes) -> JoinRequest:
    """A request of whatever bytes, both of its signatures verified; BadMessage otherwise."""
    invite, values = open_envelope(data, PROTOCOL, _HOLDER, limits.JOIN_BYTES, "a request to join")
    match values:
        case [bytes(inner)]:
            joiner, fields = open_envelope(inner, PROTOCOL, _JOINER, limits.JOIN_BYTES, "a request to join")
        case _:
            raise BadMessage("not a request to join")
    try:
        j = _Join.model_validate(dict(zip(_Join.model_fields, fields, strict=True)))
    except ValidationError as error:
        where = error.errors(include_input=False, include_url=False)[0]["loc"][0]
        raise BadMessage(f"join: {where} is not allowed") from None
    except ValueError:
        raise BadMessage(f"join with {len(fields)} fields instead of {len(_Join.model_fields)}") from None
    return JoinRequest(j.step, j.federation, j.inviter, j.name, j.addresses, joiner, invite)


def encode_welcome(welcome: Welcome) -> bytes:
    """Canonical bytes; ValueError if the values break a cap."""
    w = welcome
    return encode_fields(
        _Welcome, limits.WELCOME_BYTES, [w.name, w.federation, w.start, sorted(w.members), w.clock_ms]
    )  # fmt: skip


def decode_welcome(data: bytes) -> Welcome:
    """A welcome of whatever bytes, within its caps, or BadMessage. Its federation.toml is still text."""
    w = decode_fields(_Welcome, limits.WELCOME_BYTES, data)
    return Welcome(w.name, w.federation, w.start, w.members, w.clock_ms)


async def knock(identity: Identity, invite: Invite, step: str, name: str, addresses: tuple[str, ...]) -> Welcome:
    """Ask the inviter to `look` or to `join`; RemoteErrors only, Refused with the inviter's reason.

    A join whose answer was lost can be repeated with the same identity.
    """
    address, der = await _find(invite)
    body = encode_join(identity, invite, step, name, addresses)
    try:
        async with (
            asyncio.timeout(limits.HELLO_SECONDS),
            pinned_session(der, client_context(None, der)) as session,
            session.post(f"https://{dialable(address)}/v1/join", data=body, allow_redirects=False) as response,
        ):
            await check(response, 200)
            return decode_welcome(await read(response.content, limits.WELCOME_BYTES))
    except TimeoutError:
        raise Unreachable(f"{short(invite.peer)} at {address} gave no complete answer in time") from None
    except (aiohttp.ClientError, ConnectionError) as error:
        raise Unreachable(f"{short(invite.peer)} at {address}: {line(error)}") from None


async def _find(invite: Invite) -> tuple[str, bytes]:
    """The first of the code's addresses at which the inviter itself answers, and its certificate."""

    async def one(address: str) -> tuple[str, bytes]:
        peer, der = await look(address)
        if peer != invite.peer:
            raise stranger(invite.peer, address)
        return address, der

    tries = [asyncio.create_task(one(address)) for address in invite.addresses]
    troubles: dict[str, str] = {}  # what is wrong -> reason
    try:
        for attempt in asyncio.as_completed(tries):
            try:
                return await attempt
            except RemoteError as error:
                troubles[error.detail] = error.reason
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
    reason = "identity" if "identity" in troubles.values() else None  # there is somebody, which says more than silence
    raise Unreachable("; ".join(troubles) or "the code has no address", reason=reason)
