"""Which versions of the others never went into a merge here: what a cut, or an absence, cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from braintorrent.protocol.version import Version
from braintorrent.storage.history import Merged


@dataclass(frozen=True, slots=True)
class Gap:
    """Versions of one author that no merge took, between two that merges took.

    first, last: their counters; since, until: unix seconds of the merges before and after; skipped: counter -> why,
    of those that a merge looked at. The others never were here in time.
    """

    first: int
    last: int
    since: float
    until: float
    skipped: Mapping[int, str] = field(default_factory=dict)

    @property
    def versions(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one author's versions, from the first that was merged to the last. merged: versions, each once."""

    merged: int
    gaps: tuple[Gap, ...]

    @property
    def missed(self) -> int:
        """Versions that no merge took."""
        return sum(gap.versions for gap in self.gaps)


def missed(merges: Iterable[Merged], me: str) -> dict[str, Taken]:
    """Author -> what became of its versions, by the merges of `me` in order.

    Whoever lost its disk counts from 1 again under a higher incarnation. What came before the first merge with an
    author, or after the last, is not told: then one of the two was not there yet, or the next merge may still take it.
    """
    last: dict[str, tuple[Version, float]] = {}
    skipped: dict[str, dict[Version, str]] = {}
    found: dict[str, Taken] = {}
    for merge in merges:
        for author, part in merge.skipped.items():
            skipped.setdefault(author, {})[part.version] = part.reason
        for author, part in merge.included.items():
            before = last.get(author)
            if author == me or (before is not None and part.version <= before[0]):
                continue
            last[author] = part.version, merge.unix
            taken, why = found.get(author, Taken(0, ())), skipped.pop(author, {})
            gap = None if before is None else _between(*before, part.version, merge.unix, why)
            found[author] = Taken(taken.merged + 1, taken.gaps if gap is None else (*taken.gaps, gap))
    return found


def _between(before: Version, since: float, after: Version, until: float, why: Mapping[Version, str]) -> Gap | None:
    first = before.counter + 1 if after.counter > before.counter else 1
    if first >= after.counter:
        return None
    skipped = {version.counter: reason for version, reason in why.items() if first <= version.counter < after.counter}
    return Gap(first, after.counter - 1, since, until, skipped)
