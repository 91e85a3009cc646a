"""Who is trusted, and who no more: peer id -> name and addresses, in `state/roster.json`. trusting.py writes it.

A roster line is what `braintorrent id` prints: `NAME PEER-ID ADDRESS[,ADDRESS...]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from braintorrent.errors import ConfigError, FormatError
from braintorrent.network.address import parse_address
from braintorrent.records import is_peer_id

BY_CODE = "code"  # nobody vouched for it: one of the two labs had a code of the other
FORMATS = (1, 2)  # 1: members by name and addresses only
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


def alike(one: str, other: str) -> bool:
    """Whether people would take one name for the other: they differ at most in case and in `_`, `-`, `.`."""
    return _bare(one) == _bare(other)


def _bare(name: str) -> str:
    return name.casefold().translate({ord(mark): None for mark in "_-."})


class Member(BaseModel):
    """One trusted lab. since: Unix seconds, 0 if unknown; vouched: peer id of who introduced it, BY_CODE, or empty.

    former: ids of keys that it had before -> Unix seconds when it was followed to the next.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    addresses: tuple[str, ...] = ()
    since: float = 0.0
    vouched: str = ""
    former: dict[str, float] = Field(default_factory=dict)

    def same(self, other: Member) -> bool:
        """Whether both have the same name and addresses."""
        return (self.name, self.addresses) == (other.name, other.addresses)


class Revoked(BaseModel):
    """A lab trusted no more. unix: when; by: peer id of whose advice this was, or empty; former: as above.

    Each former id has a line of its own, too: what was made under it is a revoked lab's work.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    why: str
    unix: float
    by: str
    former: dict[str, float] = Field(default_factory=dict)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = FORMATS[-1]
    members: dict[str, Member] = Field(default_factory=dict)
    revoked: dict[str, Revoked] = Field(default_factory=dict)


def encode_roster(members: Mapping[str, Member], revoked: Mapping[str, Revoked]) -> bytes:
    """The bytes of the file."""
    return _File(members=dict(members), revoked=dict(revoked)).model_dump_json(indent=1).encode()


def parse_line(line: str, called: str | None = None) -> tuple[str, Member]:
    """(peer id, member) of a line printed by `braintorrent id`; ConfigError says what is missing.

    called: the member's name, instead of the line's.
    """
    words = line.split()
    if len(words) not in (2, 3):
        raise ConfigError(
            "a roster line has a name, a peer id, and maybe addresses; paste what `braintorrent id` printed"
        )
    name, peer, addresses = called or words[0], words[1], (words[2].split(",") if len(words) == 3 else [])
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
    """The file, and what it said when last read. Another process may write it while a node runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, Member] = {}
        self.revoked: dict[str, Revoked] = {}
        self._stamp: tuple[int, int] | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Read the file again if it changed; True if the members or the revoked did."""
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
        if file.format not in FORMATS:
            raise FormatError(f"{self.path}: roster format {file.format}; this release reads {FORMATS[-1]}")
        changed = (file.members, file.revoked) != (self.members, self.revoked)
        self.members, self.revoked, self._stamp = file.members, file.revoked, stamp
        return changed

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

    def like(self, name: str) -> frozenset[str]:
        """The ids of those whose name people would take for `name`."""
        return frozenset(peer for peer, member in self.members.items() if alike(member.name, name))

    def name(self, peer: str) -> str:
        """What people here call a peer, or called it before it was revoked, or had another key."""
        heir = self.heir(peer)
        known = self.members.get(heir) or self.revoked.get(heir)
        return known.name if known else peer[:7]

    def heir(self, peer: str) -> str:
        """The id under which a lab that once had the id `peer` is known here now; else `peer` itself."""
        if peer in self.members:
            return peer
        lines = (*self.members.items(), *self.revoked.items())
        return next((heir for heir, line in lines if peer in line.former), peer)

    def lives(self, peers: Iterable[str]) -> frozenset[str]:
        """These ids, and all that the same labs had before."""
        found = set(peers)
        for peer in tuple(found):
            line = self.members.get(peer) or self.revoked.get(peer)
            found.update(line.former if line else ())
        return frozenset(found)

    def vouched(self, peers: Iterable[str]) -> frozenset[str]:
        """The ids of the members that are here on the word of these labs, or of those whom these introduced."""
        found, whose = frozenset[str](), self.lives(peers)
        while more := {p for p, member in self.members.items() if member.vouched in whose} - found - whose:
            found |= more
            whose |= self.lives(more)
        return found
