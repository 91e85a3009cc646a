"""Lineage: what went into a model, as signed announcements and records say, back to local training.

A version's record names its parents: the models of the merge it was trained from, each with its weight. The share of
an ancestor is the sum, over all ways that lead to it, of the product of the weights on the way. Where merges are
weighted means, that is the coefficient with which the change its training made enters the weights of the model:

    W = start + sum over ancestors v, the model itself included, of share(v) * (change made by the training of v)

What others' records say of their parents is their word: signed, but theirs. Beyond a hole nothing is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from braintorrent.errors import BadMessage
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import Parent, decode_record, digest
from braintorrent.records.announcement import MAX_RECORD_BYTES
from braintorrent.storage import Ledger

MAX_MENTIONS = 50_000  # parents read for one lineage: 6000 versions of 8 labs, some 20 MB
UNHEARD = "this lab never held it"
GONE = "its record is not here any more"
DAMAGED = "its record here is damaged"
OTHER = "its author announced other bytes for it"
CIRCLE = "its record leads back to what was made from it"


class Ancestor(NamedTuple):
    """One version of one lab, by its bytes. Counter 0: the weights all began from."""

    author: str
    version: Version
    content: str


Mention = tuple[Ancestor, float]  # a parent and its weight in that merge


@dataclass(frozen=True, slots=True)
class Told:
    """What announcement and record say of a version. `hole`: why nothing is known beyond it."""

    parents: tuple[Mention, ...] = ()
    samples: int = 0
    steps: int = 0
    hole: str = ""


@dataclass(frozen=True)
class Lineage:
    """Everything known to be in the model `root`.

    told: nearest first. via: ancestor -> the one it was first met in. distance: merges between it and the model.
    order: every version before its parents. unread: mentions that were too many to follow. merge: the model itself is
    a merge that no training followed.
    """

    root: Ancestor
    told: dict[Ancestor, Told]
    via: dict[Ancestor, Ancestor]
    distance: dict[Ancestor, int]
    order: list[Ancestor]
    share: dict[Ancestor, float]
    unread: int = 0
    merge: bool = False

    @property
    def trained(self) -> list[Ancestor]:
        """The versions whose training is known to be in it, nearest first."""
        return [a for a in self.told if a.version != NOTHING and not (self.merge and a == self.root)]

    @property
    def authors(self) -> frozenset[str]:
        """The labs whose training is known to be in it."""
        return frozenset(ancestor.author for ancestor in self.trained)

    @property
    def holes(self) -> list[Ancestor]:
        """The versions beyond which nothing is known, nearest first."""
        return [ancestor for ancestor, told in self.told.items() if told.hole]

    @property
    def influence(self) -> dict[str, float]:
        """Lab -> its versions' shares added up, as a part of all that is known; the largest first."""
        sums: dict[str, float] = {}
        for ancestor in self.trained:
            sums[ancestor.author] = sums.get(ancestor.author, 0.0) + self.share[ancestor]
        total = sum(sums.values()) or 1.0
        return {author: value / total for author, value in sorted(sums.items(), key=lambda item: -item[1])}


class Ancestry:
    """Reads a state folder's announcements and records, each once; beside a running node, too. Any thread may call."""

    def __init__(self, ledger: Ledger, blobs: Path) -> None:
        self.ledger, self.blobs = ledger, blobs
        self._read: dict[Ancestor, Told] = {}
        self._mentions = 0

    def trace(self, root: Ancestor, told: Told | None = None) -> Lineage:
        """The lineage of `root`. told: what is known of a merge that was never announced."""
        found, via, unread = self._walk(root, told)
        distance = {root: 0}
        for ancestor, child in via.items():
            distance.setdefault(ancestor, distance[child] + 1)
        order, circles = _descending(root, found)
        for ancestor in circles:
            found[ancestor] = Told((), found[ancestor].samples, found[ancestor].steps, CIRCLE)
        return Lineage(root, found, via, distance, order, _shares(root, order, found), unread, told is not None)

    def authors(self, announcement: Announcement | None) -> frozenset[str]:
        """The labs whose training is known to be in a version."""
        if announcement is None:
            return frozenset()
        found, *_ = self._walk(Ancestor(announcement.author, announcement.version, announcement.content), None)
        return frozenset(ancestor.author for ancestor in found if ancestor.version != NOTHING)

    def containing(self, peers: Collection[str], announcements: Iterable[Announcement]) -> dict[str, frozenset[str]]:
        """Author -> which of `peers` are known to be in its version, for the versions that contain any."""
        if not peers:
            return {}
        found = {a.author: self.authors(a).intersection(peers) for a in announcements}
        return {author: inside for author, inside in found.items() if inside}

    def _walk(
        self, root: Ancestor, told: Told | None
    ) -> tuple[dict[Ancestor, Told], dict[Ancestor, Ancestor], int]:  # fmt: skip
        """What is told of everything in `root`, nearest first; in what each was met first; mentions not followed."""
        found, via = {root: told or self._told(root)}, {root: root}
        waiting, mentions, unread = deque([root]), 0, 0
        while waiting:
            ancestor = waiting.popleft()
            for parent, _ in sorted(found[ancestor].parents, key=lambda mention: -mention[1]):
                mentions += 1
                if parent in found:
                    continue
                if mentions > MAX_MENTIONS:
                    unread += 1
                    continue
                found[parent], via[parent] = self._told(parent), ancestor
                waiting.append(parent)
        return found, via, unread

    def _told(self, ancestor: Ancestor) -> Told:
        if ancestor.version == NOTHING:
            return Told()
        told = self._read.get(ancestor)
        if told is not None:
            return told
        told = self._look_up(ancestor)
        if not told.hole:  # which may yet be filled
            self._mentions += len(told.parents)
            if self._mentions > MAX_MENTIONS:
                self._read.clear()
                self._mentions = len(told.parents)
            self._read[ancestor] = told
        return told

    def _look_up(self, ancestor: Ancestor) -> Told:
        try:
            announcement = self.ledger.announced(ancestor.author, ancestor.version)
        except BadMessage:
            return Told(hole=DAMAGED)
        if announcement is None:
            return Told(hole=UNHEARD)
        if announcement.content != ancestor.content:
            return Told(hole=OTHER)
        samples, steps = announcement.samples, announcement.steps
        try:
            with (self.blobs / announcement.record).open("rb") as file:
                data = file.read(MAX_RECORD_BYTES + 1)
            if digest(data) != announcement.record:
                return Told((), samples, steps, DAMAGED)
            parents = decode_record(data).parents
        except OSError:
            return Told((), samples, steps, GONE)
        except BadMessage:
            return Told((), samples, steps, DAMAGED)
        scale = 1 / max(1.0, sum(parent.weight for parent in parents))  # a record can claim more than all
        return Told(tuple((_named(p), p.weight * scale) for p in parents), samples, steps)


def _named(parent: Parent) -> Ancestor:
    version = Version(parent.incarnation, parent.counter) if parent.counter else NOTHING
    return Ancestor(parent.author, version, parent.content)


def _descending(root: Ancestor, told: dict[Ancestor, Told]) -> tuple[list[Ancestor], set[Ancestor]]:
    """Every version before its parents; and those whose record leads back to a version made from them."""
    ended: dict[Ancestor, bool] = {root: False}  # False: still on the way down
    circles: set[Ancestor] = set()
    way: list[tuple[Ancestor, Iterator[Mention]]] = [(root, iter(told[root].parents))]
    order: list[Ancestor] = []
    while way:
        ancestor, parents = way[-1]
        for parent, _ in parents:
            if parent not in told:
                continue
            if parent not in ended:
                ended[parent] = False
                way.append((parent, iter(told[parent].parents)))
                break
            if not ended[parent]:
                circles.add(ancestor)
        else:
            ended[ancestor] = True
            order.append(ancestor)
            way.pop()
    return order[::-1], circles


def _shares(root: Ancestor, order: list[Ancestor], told: dict[Ancestor, Told]) -> dict[Ancestor, float]:
    shares = dict.fromkeys(order, 0.0) | {root: 1.0}
    for ancestor in order:
        for parent, weight in told[ancestor].parents:
            if parent in shares:
                shares[parent] += shares[ancestor] * weight
    return shares
