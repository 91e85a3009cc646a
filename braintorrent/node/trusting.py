"""Trust given, taken back, passed on: the only writers of the roster. For a command line beside a node, or its threads.

Each change is an entry of the ledger with the digests of the roster it leads to and of the one it found, then the file
itself: after a crash between the two, or with a full disk, the roster is still the one that was found.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from braintorrent.errors import ConfigError
from braintorrent.network.address import parse_address
from braintorrent.node.kept import read_notices
from braintorrent.node.roster import Member, Revoked, Roster, encode_roster
from braintorrent.protocol.notices import MAX_ROTATIONS
from braintorrent.records import Identity, digest, is_peer_id, short
from braintorrent.records.notice import (
    MAX_NOTICE_ADDRESSES,
    MAX_WHY_CHARS,
    Introduction,
    Notice,
    Revocation,
    Rotation,
    sign_notice,
)
from braintorrent.storage import Ledger, StatePaths, replacing


@dataclass(frozen=True)
class _Desk:
    """The roster and the ledger, while nobody else changes the roster."""

    identity: Identity
    roster: Roster
    ledger: Ledger

    def put(self, action: str, peer: str, why: str, line: Member | Revoked | None, without: frozenset[str]) -> None:
        """One peer's new line, and `without` these; durable on return, in the ledger first."""
        roster, gone, former = self.roster, without | {peer}, self.former(peer) | (line.former if line else {})
        name = line.name if line else roster.name(peer)
        members = {p: m for p, m in roster.members.items() if p not in gone}
        revoked = {p: r for p, r in roster.revoked.items() if p not in (peer, *former)}
        if isinstance(line, Member):
            members[peer] = line.model_copy(update={"former": former})
        elif line is not None:
            revoked |= {p: line.model_copy(update={"former": {}}) for p in former if p not in members}
            revoked[peer] = line.model_copy(update={"former": former})
        content = encode_roster(members, revoked)
        body = {
            "action": action, "peer": peer, "former": sorted(former), "name": name, "why": why,
            "roster": digest(content), "over": digest(roster.path.read_bytes() if roster.path.exists() else b""),
        }  # fmt: skip
        with replacing(roster.path, content):  # where there is no room for it, nothing is said either
            self.ledger.record("roster", body)
        roster.refresh()

    def former(self, peer: str) -> dict[str, float]:
        """The ids that a lab had before, as its line here tells."""
        line = self.roster.members.get(peer) or self.roster.revoked.get(peer)
        return line.former if line else {}

    def say(self, notice: Introduction | Revocation) -> Notice:
        """Sign a notice of this lab's own, to be passed on."""
        signed = sign_notice(self.identity, notice)
        self.ledger.keep_notice(signed.raw, "own")
        return signed

    def time_about(self, peer: str) -> int:
        """Unix milliseconds, but after whatever this lab last said about a peer: the newest statement counts."""
        said = (each.notice for each in read_notices(self.ledger) if each.state == "own")
        about = (n.unix_ms for n in said if isinstance(n, Introduction | Revocation) and n.peer == peer)
        return max(int(time.time() * 1000), max(about, default=0) + 1)


@contextlib.contextmanager
def _desk(paths: StatePaths, identity: Identity) -> Iterator[_Desk]:
    paths.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(paths.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # a node and a command line may both want to change the roster
        with Ledger(paths.ledger, identity=identity) as ledger:
            yield _Desk(identity, Roster(paths.roster), ledger)
    finally:
        os.close(descriptor)


def trust(paths: StatePaths, identity: Identity, peer: str, member: Member, *, replace: bool = False) -> None:
    """Trust a peer from now on; durable on return. replace: whoever had its name, or it under another name.

    ConfigError otherwise: one name is one lab, or people would take one for the other. So for a revoked peer.
    """
    if peer == identity.id:
        raise ConfigError("this line is this peer's own; trust takes the other lab's line")
    with _desk(paths, identity) as desk:
        known = desk.roster.members.get(peer)
        if known is None or not known.same(member):
            _trust(desk, peer, member, replace=replace)


def _trust(desk: _Desk, peer: str, member: Member, *, replace: bool = False) -> None:
    known, same = desk.roster.members.get(peer), desk.roster.named(member.name) - {peer}
    trouble = objection(desk.roster, peer, member.name)
    if trouble and not replace:
        raise ConfigError(f"{desk.roster.path}: {trouble}; if you are sure: braintorrent trust --replace LINE")
    since = member.since or (known.since if known else 0.0) or time.time()
    why = f"introduced by {desk.roster.name(member.vouched)}" if member.vouched else ""
    desk.put("trusted", peer, why, member.model_copy(update={"since": since}), same)


def objection(roster: Roster, peer: str, name: str) -> str:
    """Why trusting `peer` as `name` takes a person's second thought; "" if nothing speaks against it."""
    same, known, revoked = roster.like(name) - {peer}, roster.members.get(peer), roster.revoked.get(peer)
    if (heir := roster.heir(peer)) in roster.members and heir != peer:
        return f"{peer} is the id that {roster.name(heir)} had before it took a new key"
    if revoked is not None:
        day = time.strftime("%Y-%m-%d", time.gmtime(revoked.unix))
        return f"{revoked.name} was revoked here on {day}: {revoked.why or 'no reason given'}"
    if same:
        called = roster.name(min(same))
        how = name if called == name else f"{name}, or {called} as people may read it,"
        return f"{how} is {min(same)} here already (call the new one --name OTHER)"
    return f"{peer} is {known.name} here already" if known is not None and known.name != name else ""


def untrust(paths: StatePaths, identity: Identity, name: str) -> frozenset[str]:
    """Trust nobody of that name any more; durable on return. The ids it had; ConfigError if there is none."""
    with _desk(paths, identity) as desk:
        gone = _called(desk.roster, name)
        for peer in sorted(gone):
            desk.put("untrusted", peer, "", None, frozenset())
    return gone


def revoke(
    paths: StatePaths, identity: Identity, federation_id: str, name: str, why: str, *, vouched: bool = False
) -> frozenset[str]:  # fmt: skip
    """Trust nobody of that name, or peer id, any more, and have the others told; durable on return. The ids it had.

    vouched: nor any lab that is here on its word. The others are told of former ids as well: some know no newer one.
    ConfigError if nobody has that name, or the reason is too long or not one printable line.
    """
    if len(why) > MAX_WHY_CHARS or not why.isprintable():
        raise ConfigError(f"--why: one line of at most {MAX_WHY_CHARS} characters, please: others will read it")
    with _desk(paths, identity) as desk:
        known = is_peer_id(name) and name != identity.id
        gone = frozenset([desk.roster.heir(name)]) if known else _called(desk.roster, name)
        if vouched:
            gone |= desk.roster.vouched(gone)
        for peer in sorted(gone):
            called, former = desk.roster.name(peer), desk.former(peer)
            for one in (*sorted(former, key=lambda p: former[p])[-MAX_ROTATIONS:], peer):
                desk.say(Revocation(federation_id, identity.id, one, called, why, desk.time_about(one)))
            _strike_off(desk, peer, Revoked(name=called, why=why, unix=time.time(), by=""))
    return gone


def revoke_again(paths: StatePaths, identity: Identity, revoked: Mapping[str, Revoked]) -> None:
    """Revocations of a backup, but of whom is trusted or revoked here already. Nobody is told; durable on return."""
    with _desk(paths, identity) as desk:
        for peer, line in revoked.items():
            if peer not in desk.roster.members and peer not in desk.roster.revoked:
                _strike_off(desk, peer, line)


def _strike_off(desk: _Desk, peer: str, revoked: Revoked) -> None:
    desk.put("revoked", peer, revoked.why, revoked, frozenset())


def introduce(
    paths: StatePaths, identity: Identity, federation_id: str, peer: str, member: Member
) -> Introduction:  # fmt: skip
    """Tell the others whom this lab trusts: they take or leave it by their own policy. Durable on return."""
    with _desk(paths, identity) as desk:
        addresses = member.addresses[:MAX_NOTICE_ADDRESSES]
        now = desk.time_about(peer)
        said = desk.say(Introduction(federation_id, identity.id, peer, member.name, addresses, now))
        assert isinstance(said, Introduction)
        return said


def heed(paths: StatePaths, identity: Identity, notice: Notice, *, name: str = "") -> None:
    """Do what another lab's notice advises, and keep it as accepted; durable on return.

    name: what to call an introduced lab here, instead of what the other calls it. ConfigError if that name is taken,
    or the lab was revoked here: what this lab decided, others' advice does not undo.
    """
    with _desk(paths, identity) as desk:
        match notice:
            case Introduction() if notice.peer not in desk.roster.members and notice.peer != identity.id:
                addresses = tuple(address for address in notice.addresses if _is_address(address))
                member = Member(name=name or notice.name, addresses=addresses, vouched=notice.author)
                _trust(desk, notice.peer, member)
            case Revocation() if (heir := desk.roster.heir(notice.peer)) in desk.roster.members:
                called = desk.roster.name(heir)
                revoked = Revoked(name=called, why=notice.why, unix=notice.unix_ms / 1000, by=notice.author)
                _strike_off(desk, heir, revoked)
            case Rotation() if notice.author in desk.roster.members and notice.peer not in desk.roster.revoked:
                _follow(desk, notice)
        desk.ledger.keep_notice(notice.raw, "accepted")


def _follow(desk: _Desk, notice: Rotation) -> None:
    """The heir takes the line, and remembers the former ids: what is said of them is said of it."""
    old = desk.roster.members[notice.author]
    former = {p: unix for p, unix in old.former.items() if p != notice.peer} | {notice.author: time.time()}
    line = old.model_copy(update={"former": former})
    desk.put("followed", notice.peer, f"was {short(notice.author)}", line, frozenset([notice.author]))


def _is_address(text: str) -> bool:
    try:
        return parse_address(text).port > 0
    except ValueError:
        return False


def _called(roster: Roster, name: str) -> frozenset[str]:
    found = roster.named(name)
    if not found:
        raise ConfigError(f"{roster.path}: nobody here is called {name}; there are: {roster.names or 'none'}")
    return found
