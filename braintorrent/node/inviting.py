"""Invite: let a lab in that holds a code. `state/invites.json` knows codes by the ids of their one-time keys only.

A join is in this order, each step durable: the code is bound to the joiner's key, the joiner is trusted and
introduced to the others, the code is settled. A crash in between is mended when that key asks again; any other key
finds the code used. A settled code trusts nobody again, so a lab taken off the roster cannot come back by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.errors import ConfigError, FormatError, LocalError, Refused, RemoteError, StorageFull
from braintorrent.network import limits
from braintorrent.network.answering import Declined
from braintorrent.network.buckets import Bucket
from braintorrent.network.joining import JoinRequest, Welcome, decode_join, encode_welcome
from braintorrent.node.context import Context, log
from braintorrent.node.control import read_status
from braintorrent.node.finding import follow_roster
from braintorrent.node.kept import taken_off
from braintorrent.node.lab import Lab, ensure_identity, hints
from braintorrent.node.roster import BY_CODE, Member, Name, Roster, alike
from braintorrent.node.trusting import introduce, objection, trust
from braintorrent.records import Invite, encode_invite, short
from braintorrent.records.invite import new_secret
from braintorrent.storage import Ledger, StatePaths, write_atomically

FORMAT = 1
FORGET_SECONDS = 30 * 86400.0  # a code that expired so long ago is struck from the file


class Given(BaseModel):
    """A code given away. joined: peer id of the lab that used it; settled: and that lab is trusted since."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    made: float
    expires: float
    joined: str = ""
    settled: bool = False

    def state(self, now: float) -> str:
        """For people."""
        return f"used by {short(self.joined)}" if self.joined else "expired" if now >= self.expires else "open"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    invites: dict[str, Given] = Field(default_factory=dict)


def invite(folder: Path, name: str, hours: float, now: float) -> str:
    """A new code for the lab that this one will call `name`, good for `hours`; ConfigError if that cannot be."""
    identity, paths = ensure_identity(folder), StatePaths(folder)
    federation = load_federation(federation_path(folder))
    if federation.kind == "bundle":
        raise ConfigError(
            f"{federation_path(folder)}: a bundle is code, which no code word brings to another lab; install it there "
            "by hand (docs/bundles.md), and trust each other by braintorrent id and braintorrent trust"
        )
    if Roster(paths.roster).like(name):
        raise ConfigError(f"{paths.roster}: {name} is trusted here already; give the new lab another name")
    code = Invite(
        identity.id, federation.id, new_secret(), int(now + 3600 * hours), tuple(_addresses(folder)[:8]), name
    )  # fmt: skip
    try:
        word = encode_invite(code)
        given = Given(name=name, made=now, expires=code.expires_unix)
    except ValidationError:
        raise ConfigError(f"{name!a} is not a name (letters, digits, dot, dash, underscore; at most 63)") from None
    with _changing(paths) as invites:
        if any(alike(other.name, name) and other.state(now) == "open" for other in invites.values()):
            undo = f"braintorrent invite --cancel {name} -C {folder}"
            raise ConfigError(f"{paths.invites}: {name} has an open invite; {undo}")
        invites[code.key.id] = given
    return word


def invites(paths: StatePaths) -> list[Given]:
    """Every code given away and not forgotten, oldest first."""
    return sorted(_read(paths).values(), key=lambda given: given.made)


def cancel(paths: StatePaths, name: str, now: float) -> bool:
    """Make the code for `name` worthless, and forget it; whether it was still good. ConfigError if there is none."""
    with _changing(paths) as invites:
        found = [key for key, given in invites.items() if given.name == name and not given.joined]
        if not found:
            where = f"-C {paths.path.parent}"
            raise ConfigError(f"{paths.invites}: no open invite for {name}; see braintorrent invite --list {where}")
        return "open" in [invites.pop(key).state(now) for key in found]


class Inviting:
    """The running node's side of POST /v1/join."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._failures = Bucket(1 / limits.JOIN_FAILURE_SECONDS, limits.JOIN_FAILURES)
        self._failed = 0
        self._one_at_a_time = asyncio.Lock()

    async def join(self, body: bytes) -> bytes:
        """The answer to a request of any bytes, or a RemoteError whose reason travels to whoever asked."""
        context = self._context
        try:
            request = decode_join(body)
            async with self._one_at_a_time:
                await asyncio.to_thread(admit, context.lab, request, time.time())
        except RemoteError as error:
            self._failed += 1
            context.notes["joining"] = f"failed attempts to join by a code: {self._failed}, the last: {error.reason}"
            if not self._failures.take(1, context.now):
                raise Declined(429, "busy", "too many failed attempts to join; try again later") from None
            log.warning("a lab tried to join and was declined: %s", error.reason)
            raise
        except (LocalError, StorageFull) as error:
            log.error("a lab could not be let in: %s", error)
            raise Refused("this lab cannot let anybody in at present; its log says why") from None
        if request.step == "join":
            follow_roster(context)
            log.info("%s %s joined by a code", context.lab.roster.name(request.joiner), short(request.joiner))
        return encode_welcome(welcome(context.lab, request.joiner, time.time()))


def admit(lab: Lab, request: JoinRequest, now: float) -> None:
    """Let the joiner look, or trust it from now on, durably; Refused if its code does not allow that."""
    paths, identity, who = lab.state, lab.identity, request.joiner
    if (request.inviter, request.federation) != (identity.id, lab.federation.id) or who == identity.id:
        raise Refused("this code is another lab's, or another federation's", reason="unknown")
    with _changing(paths) as invites:
        given = invites.get(request.invite)
        if given is None:
            raise Refused("this lab knows no such code; it may have been cancelled", reason="unknown")
        if given.joined not in ("", who):
            raise Refused("this code was used already, by another key", reason="used")
        if not given.joined and now >= given.expires:
            raise Refused("this code has expired", reason="expired")
    roster = Roster(paths.roster)
    if given.settled and who not in roster.ids:
        raise Refused("this code was used, and its lab is no longer trusted here", reason="used")
    if who not in roster.ids:
        with Ledger(paths.ledger, identity=identity) as ledger:
            gone = taken_off(ledger).get(who, 0.0)
        if gone > given.made:  # though a crash left the code unsettled
            raise Refused("this lab took you off its roster since it gave this code", reason="used")
    if who not in roster.ids and objection(roster, who, given.name):
        raise Refused("this lab cannot take you by this code any more; ask for a new one", reason="unknown")
    if request.step == "join" and not given.settled:
        _settle(lab, request, given)


def _settle(lab: Lab, request: JoinRequest, given: Given) -> None:
    paths, who = lab.state, request.joiner
    _note(paths, request.invite, given.model_copy(update={"joined": who}))
    if who not in Roster(paths.roster).ids:
        trust(paths, lab.identity, who, Member(name=given.name, addresses=request.addresses, vouched=BY_CODE))
    introduce(paths, lab.identity, lab.federation.id, who, Roster(paths.roster).members[who])
    _note(paths, request.invite, given.model_copy(update={"joined": who, "settled": True}))


def welcome(lab: Lab, joiner: str, now: float) -> Welcome:
    """What a lab that holds a code may know: the federation, and who else is in it."""
    others = Roster(lab.state.roster).members.items()
    members = [(peer, m.name, m.addresses[: limits.ADDRESSES_EACH]) for peer, m in sorted(others) if peer != joiner]
    text = tomli_w.dumps(lab.federation.model_dump())  # of what this node runs by, whatever its file says by now
    return Welcome(lab.peer.name, text, lab.start, tuple(members[: limits.MEMBERS]), int(now * 1000))


def _addresses(folder: Path) -> list[str]:
    """Where a joiner may find this lab: as peer.toml says, or as the running node knows."""
    status = read_status(folder)
    found: list[str] = status["addresses"] if status else hints(load_peer(folder), folder / "peer.toml")
    if not found:
        raise ConfigError(
            f"{folder / 'peer.toml'}: listen: its port is chosen at the start, so a code could not name it; "
            "give a fixed port, or start the node first"
        )
    return found


def _note(paths: StatePaths, key: str, given: Given) -> None:
    with _changing(paths) as invites:
        if key not in invites:
            raise Refused("this code was cancelled a moment ago", reason="unknown")
        invites[key] = given


@contextlib.contextmanager
def _changing(paths: StatePaths) -> Iterator[dict[str, Given]]:
    """The invites, written durably at the end if they changed, while no other process changes them."""
    paths.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(paths.invites.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = _read(paths)
        after = {key: given.model_copy() for key, given in before.items()}
        yield after
        if after != before:
            kept = {key: g for key, g in after.items() if g.expires > time.time() - FORGET_SECONDS}
            write_atomically(paths.invites, _File(invites=kept).model_dump_json(indent=1).encode())
    finally:
        os.close(descriptor)


def _read(paths: StatePaths) -> dict[str, Given]:
    try:
        file = _File.model_validate_json(paths.invites.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValidationError, OSError) as error:
        raise FormatError(f"{paths.invites}: not invites this release reads ({type(error).__name__})") from None
    if file.format != FORMAT:
        raise FormatError(f"{paths.invites}: invites of format {file.format}; this release reads {FORMAT}")
    return file.invites
