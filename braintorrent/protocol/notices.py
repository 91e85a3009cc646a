"""What labs say about labs: who is introduced, revoked, under a new key, or caught with two contents for one version.

A notice is a signed value that anyone may relay. What a lab does about one is its own affair (node/noticing.py);
here is which ones are kept and told.

    invariants  every notice kept is of this federation, and somebody on the roster answers for it
                one for each author and subject, the newest: so all labs end with the same
                of one author at most MAX_NOTICES_EACH, and outside of these one proof for each life
                one rotation from each id and to each, so chains, and none longer than MAX_ROTATIONS
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from blake3 import blake3

from braintorrent.protocol.entry import MAX_QUARANTINED
from braintorrent.protocol.messages import Announcement

MAX_NOTICE_BYTES = 1024
MAX_NOTICES_TOLD = 16  # in one Tell; drawn at random, so that a few asks bring them all
MAX_NOTICES_EACH = 64  # of one author: about so many labs it may speak
MAX_ROTATIONS = 4  # new keys of one lab that are told together, to whoever slept through them


ROTATION = "rotation"  # the subject of one; no peer id


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
        self._of: dict[tuple[str, bool], dict[str, Notice]] = {}  # author, proofs or not -> subject -> its newest
        self._digest: str | None = ""

    def __iter__(self) -> Iterator[Notice]:
        return (notice for of in self._of.values() for notice in of.values())

    def add(self, notice: Notice) -> bool:
        """Keep it; False if it is here already, or something newer of its author about the same."""
        rival = self._led_to(notice.peer) if isinstance(notice, Rotation) else None
        if rival is not None and rival.author != notice.author:
            if _age(rival) >= _age(notice):
                return False
            del self._of[rival.author, False][ROTATION]
        convicts = isinstance(notice, Proof)  # apart, where the convict's other words cannot push it out
        of, subject = self._of.setdefault((notice.author, convicts), {}), _subject(notice)
        before = of.get(subject)
        if before is not None and _age(before) >= _age(notice):
            return False
        of[subject], self._digest = notice, None
        if len(of) > (MAX_QUARANTINED if convicts else MAX_NOTICES_EACH):
            oldest = min(of, key=lambda s: _age(of[s]))
            return of.pop(oldest) is not notice
        return True

    def keep_of(self, roster: Set[str]) -> None:
        """Drop those that nobody on the roster answers for."""
        if not self._of:
            return
        chained = self._chained(roster)
        kept = [notice for notice in self if _answered_for(notice, roster, chained)]
        self._of, self._digest = {}, None
        for notice in kept:
            self.add(notice)

    def answered(self, notice: Notice, roster: Set[str]) -> bool:
        """Whether somebody on the roster says this, or is convicted by it, or is in one chain of keys with it."""
        return _answered_for(notice, roster, self._chained(roster) if isinstance(notice, Rotation) else roster)

    def _chained(self, roster: Set[str]) -> Set[str]:
        """Those on the roster, and by the rotations held, the ids that their labs had before and have later."""
        rotations = [of[ROTATION] for of in self._of.values() if ROTATION in of]
        after = {r.author: r.peer for r in rotations if isinstance(r, Rotation)}
        before = {heir: author for author, heir in after.items()}
        found = set(roster)
        for way in (after, before):
            ends = roster & way.keys()
            for _ in range(MAX_ROTATIONS - 1):
                ends = {way[end] for end in ends if end in way}
                found |= ends
        return found

    def _led_to(self, peer: str) -> Rotation | None:
        rotations = (of.get(ROTATION) for of in self._of.values())
        return next((r for r in rotations if isinstance(r, Rotation) and r.peer == peer), None)

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


def _answered_for(notice: Notice, roster: Set[str], chained: Set[str]) -> bool:
    """A new key answers for the rotations that led to it, an old one for those that lead on."""
    if isinstance(notice, Rotation):
        return notice.author in chained or notice.peer in chained
    return notice.author in roster


def _subject(notice: Notice) -> str:
    match notice:
        case Proof():
            return f"life {notice.first.version.incarnation}"
        case Rotation():
            return ROTATION
    return notice.peer


def _age(notice: Notice) -> tuple[int, str]:
    return notice.unix_ms, notice.digest
