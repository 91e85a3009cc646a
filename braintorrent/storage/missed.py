"""Which versions of the others never went into a merge here: what a cut, or an absence, cost."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from braintorrent.protocol.version import Version
from braintorrent.storage.history import Merged


@dataclass(frozen=True, slots=True)
class Gap:
    """Versions of one author that no merge took, between two that merges took.

    first, last: their counters; since, until: unix seconds when the versions before and after came here; held: how many
    of them were on this disk, most of them superseded before the next merge; skipped: counter -> why, of those a merge
    looked at.
    """

    first: int
    last: int
    since: float
    until: float
    held: int = 0
    skipped: Mapping[int, str] = field(default_factory=dict)

    @property
    def versions(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one author's versions.

    merged: versions, each once; gaps: between the first of these and the last; skipped: reason -> versions that merges
    looked at, and none took.
    """

    merged: int
    gaps: tuple[Gap, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def missed(self) -> int:
        """Versions in the gaps."""
        return sum(gap.versions for gap in self.gaps)


def taken_from(
    merges: Iterable[Merged], arrived: Mapping[tuple[str, Version], float], own: Collection[str],
    heir: Callable[[str], str] = lambda author: author,
) -> dict[str, Taken]:  # fmt: skip
    """Author -> what became of its versions, by the merges of a lab in order.

    arrived: (author, version) -> unix seconds, of all that was ever held here; own: the ids that the lab had itself;
    heir: the id that an author has now. A merge may come long after what it takes, as the first after a night away
    does: a gap has the times when its ends came. A version that counts no further than the one merged before, of a
    lab that lost its disk or restored an old copy, begins no gap: nobody here knows where its new count began.
    """
    lines: dict[str, list[tuple[Version, float]]] = {}
    looked: dict[str, dict[Version, str]] = {}
    held: dict[str, list[Version]] = {}
    for merge in merges:
        for author, part in merge.skipped.items():
            looked.setdefault(heir(author), {})[part.version] = part.reason
        for author, part in merge.included.items():
            line = lines.setdefault(heir(author), [])
            if not line or part.version > line[-1][0]:
                line.append((part.version, arrived.get((author, part.version), merge.unix)))
    for author, version in arrived:
        held.setdefault(heir(author), []).append(version)
    others = [author for author in dict.fromkeys([*lines, *looked]) if author not in own]
    return {a: _taken(lines.get(a, []), looked.get(a, {}), sorted(held.get(a, []))) for a in others}


def _taken(line: Sequence[tuple[Version, float]], looked: Mapping[Version, str], held: Sequence[Version]) -> Taken:
    gaps = []
    for (before, since), (after, until) in pairwise(line):
        missing = range(before.counter + 1, after.counter)
        if missing:
            between = held[bisect_right(held, before) : bisect_left(held, after)]
            here = {version.counter for version in between if version.counter in missing}
            why = {v.counter: looked[v] for v in between if v in looked and v.counter in missing}
            gaps.append(Gap(missing[0], missing[-1], since, until, len(here), why))
    merged = {version for version, _ in line}
    skipped = Counter(reason for version, reason in looked.items() if version not in merged)
    return Taken(len(line), tuple(gaps), dict(skipped.most_common()))
