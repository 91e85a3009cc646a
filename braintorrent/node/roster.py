"""Who is trusted: peer id -> name and addresses, in `state/roster.json`, filled by `braintorrent trust`.

A roster line is what `braintorrent id` prints: `NAME PEER-ID ADDRESS[,ADDRESS...]`.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def line_of(name: str, peer: str, addresses: Iterable[str] = ()) -> str:
    """What `parse_line` reads."""
    return " ".join([name, peer, *filter(None, [",".join(addresses)])])


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

    def add(self, peer: str, member: Member, *, replace: bool = False) -> None:
        """Trust a peer from now on; durable on return. replace: whoever had its name, or it under another name.

        ConfigError otherwise: one name is one lab, or people would take one for the other.
        """
        self.refresh()
        same = self.named(member.name) - {peer}
        known = self.members.get(peer, member).name
        if not replace and (same or known != member.name):
            other = f"{member.name} is {min(same)}" if same else f"{peer} is {known}"
            raise ConfigError(f"{self.path}: {other} here already; if you are sure: braintorrent trust --replace LINE")
        self._write({p: m for p, m in self.members.items() if p not in same} | {peer: member})

    def remove(self, name: str) -> frozenset[str]:
        """Trust nobody of that name any more; durable on return. The ids it had; ConfigError if there is none."""
        self.refresh()
        gone = self.named(name)
        if not gone:
            raise ConfigError(f"{self.path}: nobody here is called {name}; there are: {self.names or 'none'}")
        self._write({p: m for p, m in self.members.items() if p not in gone})
        return gone

    def _write(self, members: dict[str, Member]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.path, _File(members=members).model_dump_json(indent=1).encode(), mode=0o600)
        self.refresh()

    @property
    def ids(self) -> frozenset[str]:
        """The trusted peer ids."""
        return frozenset(self.members)

    @property
    def names(self) -> str:
        """What people here call the trusted peers, in order."""
        return ", ".join(sorted(member.name for member in self.members.values()))

    def named(self, name: str) -> frozenset[str]:
        """The ids of those that people here call `name`."""
        return frozenset(peer for peer, member in self.members.items() if member.name == name)

    def name(self, peer: str) -> str:
        """What people here call a peer."""
        member = self.members.get(peer)
        return member.name if member else peer[:7]
