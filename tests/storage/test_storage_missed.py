"""What was missed: the gaps between versions that merges took, and nothing that was merged."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from braintorrent.protocol.version import Version
from braintorrent.storage import Gap, Merged, Part, Taken, missed

ME, THEM = "me", "them"


def took(unix: float, counter: int, life: int = 1, **skipped: Part) -> Merged:
    return Merged(unix, {ME: Part(Version(1, 9)), THEM: Part(Version(life, counter))}, skipped)


@given(st.sets(st.integers(1, 60), min_size=1))
def test_whatever_was_not_merged_between_the_first_and_the_last_was_missed(counters: set[int]) -> None:
    merged = sorted(counters)
    (taken,) = missed([took(float(c), c) for c in merged], ME).values()
    assert taken.merged == len(merged)
    between = {c for gap in taken.gaps for c in range(gap.first, gap.last + 1)}
    assert between == set(range(merged[0], merged[-1])) - counters
    assert taken.missed == len(between)
    assert [(gap.since, gap.until) for gap in taken.gaps] == [(a, b) for a, b in pairwise(merged) if b - a > 1]


def test_what_was_skipped_says_why_once_it_is_passed() -> None:
    refused = Merged(2.0, {ME: Part(Version(1, 9))}, {THEM: Part(Version(1, 3), reason="validation")})
    assert missed([took(1.0, 2), refused], ME) == {THEM: Taken(1, ())}
    assert missed([took(1.0, 2), refused, took(3.0, 5)], ME) == {
        THEM: Taken(2, (Gap(3, 4, 1.0, 3.0, {3: "validation"}),))
    }


def test_who_lost_its_disk_counts_from_one_again() -> None:
    assert missed([took(1.0, 7), took(2.0, 1, life=2)], ME) == {THEM: Taken(2, ())}
    assert missed([took(1.0, 7), took(2.0, 3, life=2)], ME) == {THEM: Taken(2, (Gap(1, 2, 1.0, 2.0),))}
    assert missed([took(1.0, 7), took(2.0, 8, life=2)], ME) == {THEM: Taken(2, ())}


def test_the_same_version_merged_again_is_merged_once() -> None:
    assert missed([took(1.0, 7), took(2.0, 7), took(3.0, 8)], ME) == {THEM: Taken(2, ())}
