"""Who is trusted: peer id -> name and addresses, in `state/roster.json`, filled by `braintorrent trust`.

A roster line is what `braintorrent id` prints: `NAME PEER-ID ADDRESS[,ADDRESS...]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintorrent.errors import ConfigError, FormatError
from braintorrent.network.address import parse_address
from braintorrent.records import is_peer_id
from braintorrent.storage import write_atomically

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Member(BaseModel):
    """One trusted lab."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    addresses: tuple[str, ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = 1
    members: dict[str, Member] = Field(default_factory=dict)


def parse_line(line: str) -> tuple[str, Member]:
    """(peer id, member) of a line printed by `braintorrent id`; ConfigError says what is missing."""
    words = line.split()
    if len(words) not in (2, 3):
        raise ConfigError(
            "a roster line has a name, a peer id, and maybe addresses; paste what `braintorrent id` printed"
        )
    name, peer, addresses = words[0], words[1], (words[2].split(",") if len(words) == 3 else [])
    if not is_peer_id(peer):
        raise ConfigError(f"{peer!r} is not a peer id (52 letters a-z and digits 2-7)")
    try:
        return peer, Member(name=name, addresses=tuple(str(parse_address(address)) for address in addresses))
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(str(error)) from None
        raise ConfigError(f"{name!r} is not a name (letters, digits, dot, dash, underscore; at most 63)") from None


class Roster:
    """The file, and what it said when last read. Another process may add to it while a node runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, Member] = {}
        self._stamp: tuple[int, int] | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Read the file again if it changed; True if the members did."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return False
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp == self._stamp:
            return False
        try:
            file = _File.model_validate_json(self.path.read_bytes())
        except (ValidationError, OSError) as error:
            raise FormatError(f"{self.path}: not a roster this release reads ({type(error).__name__})") from None
        if file.format != 1:
            raise FormatError(f"{self.path}: roster format {file.format}; this release reads 1")
        changed = file.members != self.members
        self.members, self._stamp = file.members, stamp
        return changed

    def add(self, peer: str, member: Member) -> None:
        """Trust a peer from now on; durable on return."""
        self.refresh()
        members = {**self.members, peer: member}
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.path, _File(members=members).model_dump_json(indent=1).encode(), mode=0o600)
        self.refresh()

    @property
    def ids(self) -> frozenset[str]:
        """The trusted peer ids."""
        return frozenset(self.members)

    def name(self, peer: str) -> str:
        """What people here call a peer."""
        member = self.members.get(peer)
        return member.name if member else peer[:7]
