"""The table of authors: its invariants, whatever is heard, fetched, merged, refused and quarantined."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from braintorrent.protocol.entry import MAX_OFFERS, MAX_QUARANTINED, MAX_REFUSED, MAX_SEEN, MAX_SOURCES, Entry
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.table import Equivocation, Table
from braintorrent.protocol.version import NOTHING, Version

AUTHORS = ("ann", "bob", "cas")
Said = Callable[..., Announcement]

statements = st.builds(
    lambda author, incarnation, counter, content: Announcement(
        "fed", author, Version(incarnation, counter), f"{author}{incarnation}.{counter}{content}", 1, 1, 1.0,
        "", "", 1, False,
    ),
    st.sampled_from(AUTHORS), st.integers(1, 3), st.integers(1, 12), st.sampled_from(["", "", "", "another"]),
)  # fmt: skip


class Tables(RuleBasedStateMachine):
    """Any order of events. `refused` and `spoiled` are kept beside the table, to compare."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.refused: set[tuple[str, Version]] = set()
        self.spoiled: set[tuple[str, int]] = set()
        self.contents: dict[tuple[str, Version], str] = {}

    @rule(a=statements, source=st.sampled_from("uvwxyz"))
    def hear(self, a: Announcement, source: str) -> None:
        key = (a.author, a.version)
        contradicts = self.contents.setdefault(key, a.content) != a.content
        found = self.table.note(a, source)
        fresh = contradicts and (a.author, a.version.incarnation) not in self.spoiled
        assert isinstance(found, Equivocation) == fresh
        if contradicts:
            self.spoiled.add((a.author, a.version.incarnation))

    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        offers = [o for author in self.table.offered for o in self.table.offers(author)]
        if offers:
            a = data.draw(st.sampled_from(offers)).announcement
            before = self.table.entries[a.author].held
            useless = self.table.hold(a)
            assert useless == before
            assert self.table.entries[a.author].held == a

    @rule(a=statements)
    def fetch_what_nobody_offers_any_more(self, a: Announcement) -> None:
        held = self.table.entry(a.author).held
        if self.contents.get((a.author, a.version), a.content) == a.content:
            useless = self.table.hold(a)
            assert useless in (None, a, held)
            now = self.table.entries[a.author].held
            assert now in (held, a)
            if now == a:
                self.contents[a.author, a.version] = a.content

    @rule()
    def merge(self) -> None:
        for a in self.table.candidates():
            self.table.merge(a)
        assert not self.table.fresh

    @rule()
    def set_aside(self) -> None:
        for a in self.table.candidates():
            self.table.set_aside(a)
            assert self.table.entries[a.author].held == a
        assert not self.table.fresh

    @rule(a=statements)
    def refuse(self, a: Announcement) -> None:
        self.refused.add((a.author, a.version))
        self.table.refuse(a, "misshapen")

    @rule(author=st.sampled_from(AUTHORS))
    def strike_off(self, author: str) -> None:
        if author in self.table.entries:
            self.table.remove(author)
            self.refused = {r for r in self.refused if r[0] != author}
            self.spoiled = {s for s in self.spoiled if s[0] != author}
            self.contents = {k: c for k, c in self.contents.items() if k[0] != author}

    @invariant()
    def known_held_merged_in_order(self) -> None:
        for entry in self.table.entries.values():
            if entry.held is not None:
                assert entry.known is not None
                assert entry.known.version >= entry.held.version >= entry.merged
            versions = [o.announcement.version for o in entry.offers]
            assert all(v >= entry.merged and entry.lacks(v) for v in versions)

    @invariant()
    def nothing_unusable_is_wanted_held_or_told(self) -> None:
        wanted = [o.announcement for author in self.table.offered for o in self.table.offers(author)]
        for a in [*wanted, *self.table.candidates(), *self.table.newest_held()]:
            assert (a.author, a.version) not in self.refused
            assert (a.author, a.version.incarnation) not in self.spoiled

    @invariant()
    def memory_is_bounded(self) -> None:
        for entry in self.table.entries.values():
            assert len(entry.offers) <= MAX_OFFERS
            assert len(entry.seen) <= MAX_SEEN
            assert len(entry.refused) <= MAX_REFUSED
            assert all(len(o.sources) <= MAX_SOURCES for o in entry.offers)

    @invariant()
    def the_indexes_say_what_the_lines_say(self) -> None:
        lines = self.table.entries.items()
        assert set(self.table.offered) == {a for a, e in lines if e.offers}
        fresh = {a for a, e in lines if e.held is not None and e.held.version > max(e.merged, e.worse)}
        assert set(self.table.fresh) == fresh
        assert self.table.buckets.inside((0, 1)) == {a: e.held.version for a, e in lines if e.held is not None}
        again = Table(dict(self.table.entries))
        assert (set(again.offered), set(again.fresh)) == (set(self.table.offered), set(self.table.fresh))


Tables.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
test_tables = Tables.TestCase


def test_a_liar_with_ever_new_lives_fills_no_memory(said: Said) -> None:
    table = Table()
    for life in range(1, 500):
        table.note(said("ann", life), "ann")
        table.note(said("ann", life, content="other"), "ann")
    assert len(table.entries["ann"].quarantined) == MAX_QUARANTINED
    assert table.note(said("ann", 1000), "ann") is None
    assert not table.offered


def test_many_versions_fill_no_memory_and_the_newest_stay(said: Said) -> None:
    table = Table()
    for counter in range(1, 1000):
        table.note(said("ann", 1, counter), "ann")
    assert [o.announcement.version.counter for o in table.offers("ann")] == [999, 998, 997, 996]


def test_sources_that_came_last_replace_the_first_but_never_the_author(said: Said) -> None:
    table, offered = Table(), said("ann")
    for source in ["ann", *(f"peer{n}" for n in range(100))]:
        table.note(offered, source)
    sources = table.offers("ann")[0].sources
    assert len(sources) == MAX_SOURCES
    assert sources[0] == "ann"
    assert sources[-1] == "peer99"


def test_a_lost_blob_of_a_merged_version_may_be_fetched_again_but_nothing_older(said: Said) -> None:
    table = Table({"ann": Entry(merged=Version(1, 5))})
    table.note(said("ann", 1, 4), "bob")
    assert not table.offered
    table.note(said("ann", 1, 5), "bob")
    assert list(table.offered) == ["ann"]
    table.hold(said("ann", 1, 5))
    assert table.candidates() == []
    assert table.newest_held() == [said("ann", 1, 5)]


def test_an_entry_begins_with_nothing(said: Said) -> None:
    entry = Entry()
    assert entry.merged == NOTHING
    assert entry.known is None
    assert entry.lacks(Version(1, 1))
