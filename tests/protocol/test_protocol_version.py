"""Versions: a total order, and incarnations that only rise."""

from hypothesis import given
from hypothesis import strategies as st

from braintorrent.protocol.version import MAX_FIELD, NOTHING, Version, next_incarnation

numbers = st.integers(1, MAX_FIELD)
versions = st.builds(Version, numbers, numbers)


@given(versions, versions, versions)
def test_order_is_total_and_transitive(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert not (a <= b <= c) or a <= c
    assert a > NOTHING


@given(numbers, numbers, numbers)
def test_a_new_life_is_above_all_of_the_life_before(incarnation: int, counter: int, restart: int) -> None:
    assert Version(incarnation + 1, 1) > Version(incarnation, counter)
    assert (Version(incarnation, counter) < Version(incarnation, restart)) == (counter < restart)


@given(st.integers(0, MAX_FIELD), st.integers(0, MAX_FIELD), st.integers(0, MAX_FIELD))
def test_an_incarnation_is_above_all_evidence(durable: int, clock: int, heard: int) -> None:
    taken = next_incarnation(durable, clock, heard)
    assert taken > durable
    assert taken > heard
    assert taken >= clock
    assert taken in (durable + 1, clock, heard + 1)


@given(st.lists(st.integers(0, 2_000_000_000_000), min_size=2, max_size=20))
def test_incarnations_rise_whatever_the_clock_does(clocks: list[int]) -> None:
    durable, taken = 0, []
    for clock in clocks:
        durable = next_incarnation(durable, clock, 0)
        taken.append(durable)
    assert taken == sorted(set(taken))


def test_a_version_prints_as_people_read_it() -> None:
    assert str(Version(1700000000000, 3)) == "1700000000000.3"
