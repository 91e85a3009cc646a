"""What labs say about labs: who is introduced, revoked, under a new key, or caught with two contents for one version.

A notice is a signed value that anyone may relay. What a lab does about one is its own affair (node/noticing.py);
here is which ones are kept and told.

    invariants  every notice kept is of this federation, and somebody on the roster answers for it
                one for each author and subject, the newest: so all labs end with the same
                of one author at most MAX_NOTICES_EACH
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from blake3 import blake3

from braintorrent.protocol.messages import Announcement

MAX_NOTICE_BYTES = 1024
MAX_NOTICES_TOLD = 16  # in one Tell; drawn at random, so that a few asks bring them all
MAX_NOTICES_EACH = 64  # of one author: about so many labs it may speak


class _Raw:
    """What all notices share: exact bytes, stored and relayed as received, and a name made of them."""

    raw: bytes

    @cached_property
    def digest(self) -> str:
        """64 hex digits."""
        return blake3(self.raw).hexdigest()


@dataclass(frozen=True)
class Introduction(_Raw):
    """`author` trusts `peer`, calls it `name`, and knows these addresses of it."""

    federation: str
    author: str  # peer id
    peer: str  # peer id
    name: str
    addresses: tuple[str, ...]
    unix_ms: int
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class Revocation(_Raw):
    """`author` trusts `peer`, which it called `name`, no more."""

    federation: str
    author: str
    peer: str
    name: str
    why: str
    unix_ms: int
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class Rotation(_Raw):
    """`author`, an old id, goes on as `peer`, its new id. Both keys say so."""

    federation: str
    author: str
    peer: str
    unix_ms: int
    raw: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class Proof(_Raw):
    """Two announcements with one version and two contents: `author` signed both. It needs no other witness."""

    first: Announcement
    second: Announcement
    raw: bytes = field(default=b"", repr=False, compare=False)
    unix_ms: int = 0  # of no account: any proof of a version is as good as another

    @property
    def federation(self) -> str:
        """The federation's id."""
        return self.first.federation

    @property
    def author(self) -> str:
        """Who equivocated."""
        return self.first.author


Notice = Introduction | Revocation | Rotation | Proof


class Notices:
    """The notices that a peer holds, and passes on."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Notice]] = {}  # author -> subject -> its newest
        self._digest: str | None = ""

    def __iter__(self) -> Iterator[Notice]:
        return (notice for of in self._of.values() for notice in of.values())

    def add(self, notice: Notice) -> bool:
        """Keep it; False if it is here already, or something newer of its author about the same."""
        of, subject = self._of.setdefault(notice.author, {}), _subject(notice)
        before = of.get(subject)
        if before is not None and _age(before) >= _age(notice):
            return False
        of[subject], self._digest = notice, None
        if len(of) > MAX_NOTICES_EACH:
            oldest = min(of, key=lambda s: _age(of[s]))
            return of.pop(oldest) is not notice
        return True

    def keep_of(self, roster: Set[str]) -> None:
        """Drop those that nobody on the roster answers for."""
        kept = [notice for notice in self if answered_for(notice, roster)]
        self._of, self._digest = {}, None
        for notice in kept:
            self.add(notice)

    @property
    def digest(self) -> str:
        """Of all their digests in order, 64 hex digits; "" without any. Equal here and there: nothing to tell."""
        if self._digest is None:
            digests = sorted(notice.digest for notice in self)
            self._digest = blake3("".join(digests).encode()).hexdigest() if digests else ""
        return self._digest

    def drawn(self, rng: Random) -> tuple[Notice, ...]:
        """All of them; of more than MAX_NOTICES_TOLD, so many at random."""
        held = sorted(self, key=lambda notice: notice.digest)
        return tuple(held if len(held) <= MAX_NOTICES_TOLD else rng.sample(held, MAX_NOTICES_TOLD))


def answered_for(notice: Notice, roster: Set[str]) -> bool:
    """Whether somebody on the roster says this, or is convicted by it. A new key answers for its rotation too."""
    return notice.author in roster or (isinstance(notice, Rotation) and notice.peer in roster)


def _subject(notice: Notice) -> str:
    match notice:
        case Proof():
            return f"version {notice.first.version}"
        case Rotation():
            return "rotation"
    return notice.peer


def _age(notice: Notice) -> tuple[int, str]:
    return notice.unix_ms, notice.digest
