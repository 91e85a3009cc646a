"""Back up and restore who a lab is: its private key and its roster, in one file. Not its models: those are fetched.

The file is JSON: what, format, id, unix, key (PKCS8 PEM, encrypted where a password was given), roster,
revoked.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from braintorrent.errors import ConfigError, FormatError, IdentityError, StorageFull
from braintorrent.node.lab import check_folder
from braintorrent.node.roster import Member, Revoked, Roster
from braintorrent.node.trusting import objection, revoke_again, trust
from braintorrent.records import Identity, short
from braintorrent.storage import Ledger, StateFolder, StatePaths, write_atomically

WHAT, FORMAT = "braintorrent backup", 1


@dataclass(frozen=True)
class Backup:
    """A backup file, read. `encrypted`: opening it takes a password."""

    path: Path
    id: str
    key: bytes
    roster: dict[str, Member]
    revoked: dict[str, Revoked] = field(default_factory=dict)

    @property
    def encrypted(self) -> bool:
        """Whether the key needs a password."""
        return b"ENCRYPTED" in self.key

    def identity(self, password: str | None) -> Identity:
        """The identity in it; IdentityError if the password is wrong or the file damaged."""
        try:
            key = load_pem_private_key(self.key, password.encode() if password and self.encrypted else None)
        except (ValueError, TypeError):
            why = "the password does not open it" if self.encrypted else "the key in it is damaged"
            raise IdentityError(f"{self.path}: {why}") from None
        if not isinstance(key, Ed25519PrivateKey) or (identity := Identity(key)).id != self.id:
            raise IdentityError(f"{self.path}: the key in it is not that of {short(self.id)}: damaged")
        return identity


def write_backup(folder: Path, file: Path, password: str | None = None) -> str:
    """Key and roster of a peer folder into `file`, readable by its owner only; the peer id. A node may run there.

    LocalError if `file` is something else than an earlier backup of this peer.
    """
    check_folder(folder)
    state = StatePaths(folder)
    identity = Identity.load(state.key)
    if file.exists() and (earlier := read_backup(file).id) != identity.id:
        raise ConfigError(f"{file}: the backup of another peer, {short(earlier)}; take another name")
    lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    pem = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    trusted = Roster(state.roster)
    roster = {peer: member.model_dump() for peer, member in trusted.members.items()}
    revoked = {peer: line.model_dump() for peer, line in trusted.revoked.items()}
    content = {
        "what": WHAT, "format": FORMAT, "id": identity.id, "unix": round(time.time()), "key": pem.decode(),
        "roster": roster, "revoked": revoked,
    }  # fmt: skip
    try:
        write_atomically(file, json.dumps(content, indent=1).encode(), mode=0o600)
    except (OSError, StorageFull) as error:
        raise ConfigError(f"{file}: cannot be written ({error})") from None
    return identity.id


def read_backup(file: Path) -> Backup:
    """A backup file; FormatError if it is none, or of a format this release does not read."""
    try:
        found: Any = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: not readable ({error.strerror})") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("what") != WHAT:
        raise FormatError(f"{file}: not a backup made by braintorrent backup")
    if found.get("format") != FORMAT:
        raise FormatError(f"{file}: backup format {found.get('format')}; this release of braintorrent reads {FORMAT}")
    try:
        roster = {peer: Member.model_validate(member) for peer, member in found["roster"].items()}
        revoked = {peer: Revoked.model_validate(line) for peer, line in found.get("revoked", {}).items()}
        return Backup(file, str(found["id"]), found["key"].encode(), roster, revoked)
    except (KeyError, AttributeError, ValueError) as error:
        raise FormatError(f"{file}: a damaged backup ({type(error).__name__})") from None


def restore_backup(folder: Path, backup: Backup, password: str | None = None, *, replace: bool = False) -> list[str]:
    """Make a peer folder the peer of a backup, and say in words what was done. BusyError while a node runs there.

    Whoever the folder was before is kept beside it, and only replaced where `replace` is; ConfigError otherwise.
    """
    check_folder(folder)
    identity, done = backup.identity(password), []
    with StateFolder(folder) as state:
        former = _former(state)
        other = former is not None and former != backup.id
        if other and not replace:
            raise ConfigError(
                f"{folder}: is peer {short(str(former))} already, the backup is {short(backup.id)}; if you are sure: "
                "braintorrent restore --replace"
            )
        if other:
            aside = state.path.with_name(f"state-{short(str(former))}-{time.time_ns() // 10**6}")
            state.path.rename(aside)
            done.append(f"the state of {short(str(former))}, who it was before, is now in {aside}")
    with StateFolder(folder) as state:
        _put_key(state, identity)
        done.append(f"{folder} is peer {backup.id}")
        revoke_again(state, identity, backup.revoked)
        done += _put_roster(state, identity, backup.roster, replace=replace)
    return done


def _former(state: StatePaths) -> str | None:
    """Whose state a folder holds, by its key or else by what it published; None for nobody's."""
    with contextlib.suppress(IdentityError):
        return Identity.load(state.key).id
    if state.ledger.exists():
        with Ledger(state.ledger, read_only=True) as ledger:
            newest = ledger.newest()
            return newest.author if newest else None
    return None


def _put_key(state: StatePaths, identity: Identity) -> None:
    """The key, unless it is there; a damaged one in its place is kept under another name."""
    if state.key.exists():
        with contextlib.suppress(IdentityError):
            if Identity.load(state.key).id == identity.id:
                return
        state.key.rename(state.path / "key.damaged")
    identity.save(state.key)


def _put_roster(
    state: StatePaths, identity: Identity, members: dict[str, Member], *, replace: bool
) -> list[str]:  # fmt: skip
    """Add whom the backup trusted, and say so. Who is trusted here meanwhile stays, as told here."""
    done, roster = [], Roster(state.roster)
    for peer, member in members.items():
        roster.refresh()
        name, here = f"{member.name} {short(peer)}", roster.members.get(peer)
        trouble = objection(roster, peer, member.name)
        if here is not None and (here.same(member) or not replace):
            done.append(f"trusts {here.name} {short(peer)} as before")
        elif trouble and not replace:
            done.append(f"does not trust {name}: {trouble}")
        else:
            trust(state, identity, peer, member, replace=replace)
            done.append(f"trusts {name}")
    return done
