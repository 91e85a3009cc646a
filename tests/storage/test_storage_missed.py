"""What was missed: the gaps between versions that merges took, and nothing that was merged."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from braintorrent.protocol.version import Version
from braintorrent.storage import Gap, Merged, Part, Taken, taken_from

ME, THEM = "me", "them"


def took(unix: float, counter: int, life: int = 1, author: str = THEM) -> Merged:
    return Merged(unix, {ME: Part(Version(1, 9)), author: Part(Version(life, counter))})


def refused(unix: float, counter: int, reason: str) -> Merged:
    return Merged(unix, {ME: Part(Version(1, 9))}, {THEM: Part(Version(1, counter), reason=reason)})


def taken(*merges: Merged, held: tuple[int, ...] = (), **heirs: str) -> dict[str, Taken]:
    """held: versions that came here, at the second that is their counter."""
    arrived = {(THEM, Version(1, counter)): float(counter) for counter in held}
    return taken_from(merges, arrived, {ME}, lambda author: heirs.get(author, author))


@given(st.sets(st.integers(1, 60), min_size=1), st.sets(st.integers(1, 60)))
def test_whatever_was_not_merged_between_the_first_and_the_last_was_missed(counters: set[int], held: set[int]) -> None:
    merged = sorted(counters)
    (found,) = taken(*(took(float(c), c) for c in merged), held=tuple(held | counters)).values()
    assert found.merged == len(merged)
    between = {c for gap in found.gaps for c in range(gap.first, gap.last + 1)}
    assert between == set(range(merged[0], merged[-1])) - counters
    assert found.missed == len(between)
    assert sum(gap.held for gap in found.gaps) == len(between & held)
    assert [(gap.since, gap.until) for gap in found.gaps] == [(a, b) for a, b in pairwise(merged) if b - a > 1]


def test_what_was_skipped_says_why_whether_anything_was_merged_or_not() -> None:
    assert taken(refused(1.0, 3, "validation"), refused(2.0, 4, "norm")) == {
        THEM: Taken(0, (), {"validation": 1, "norm": 1})
    }
    assert taken(took(2.5, 2), refused(3.5, 3, "validation"), took(5.5, 5), held=(2, 3, 5)) == {
        THEM: Taken(2, (Gap(3, 4, 2.0, 5.0, 1, {3: "validation"}),), {"validation": 1})
    }
    late = refused(2.0, 3, "too-few")
    assert taken(took(1.0, 2), late, took(3.0, 3), held=(2, 3)) == {THEM: Taken(2)}, "it was merged after all"


def test_where_a_lab_counts_anew_nobody_knows_what_is_missing() -> None:
    assert taken(took(1.0, 7), took(2.0, 3, life=2)) == {THEM: Taken(2)}
    assert taken(took(1.0, 7), took(2.0, 6, life=2)) == {THEM: Taken(2)}, "a restored copy"
    assert taken(took(1.0, 7), took(2.0, 9, life=2)) == {THEM: Taken(2, (Gap(8, 8, 1.0, 2.0),))}, "it only restarted"


def test_the_same_version_merged_again_is_merged_once() -> None:
    assert taken(took(1.0, 7), took(2.0, 7), took(3.0, 8)) == {THEM: Taken(2)}


def test_a_lab_with_a_new_key_is_the_same_lab() -> None:
    merges = took(1.0, 7, author="former"), took(2.0, 9, life=2)
    assert taken(*merges, former=THEM) == {THEM: Taken(2, (Gap(8, 8, 1.0, 2.0),))}
    assert taken(*merges, former=ME).keys() == {THEM}


def test_a_night_away_is_as_long_as_nothing_came() -> None:
    """What lay here is merged in the morning, before anything newer is here."""
    morning = took(100.0, 3), took(102.0, 9)
    assert taken(took(2.0, 2), *morning, held=(2, 3)) == {THEM: Taken(3, (Gap(4, 8, 3.0, 102.0),))}
