"""Parts are by subject, as the layout gives them or dealt once and for ever."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, Entry
from braintorrent.tasks.layouts.parts import assign


def dataset(subjects: int, images: int = 1, part: str = "") -> Dataset:
    entries = [
        Entry(
            f"list: row {subject * images + image}", Path(f"{subject}-{image}.png"), ("a",), f"person {subject}", part
        )
        for subject in range(subjects)
        for image in range(images)
    ]
    return Dataset(Path("list"), "manifest", tuple(entries))


def with_parts(*parts: str) -> Dataset:
    found = dataset(len(parts))
    return replace(found, entries=tuple(replace(e, part=p) for e, p in zip(found.entries, parts, strict=True)))


def subjects(parts: dict[str, list[Entry]]) -> dict[str, set[str]]:
    return {part: {entry.subject for entry in entries} for part, entries in parts.items()}


def counts(found: Dataset, record: Path | None = None) -> dict[str, int]:
    return {part: len(entries) for part, entries in assign(found, record).items()}


@pytest.mark.parametrize(
    ("number", "shares"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (4, (2, 1, 1)), (20, (13, 2, 5)), (160, (102, 18, 40))],
)
def test_shares_of_subjects(number: int, shares: tuple[int, ...]) -> None:
    dealt = dict(zip(("training", "validation", "test"), shares, strict=True))
    assert counts(dataset(number)) == dealt
    assert counts(dataset(number, images=3)) == {part: 3 * count for part, count in dealt.items()}
    assert counts(dataset(number, part="training")) == dealt  # a listing that only says what to train on


def test_no_subject_is_in_two_parts_and_the_seed_decides() -> None:
    found = dataset(40, images=2)
    parts = subjects(assign(found, None))
    assert sum(map(len, parts.values())) == 40
    assert subjects(assign(replace(found, entries=found.entries[::-1]), None)) == parts  # the order does not
    assert subjects(assign(found, None, seed=1)) != parts


def test_parts_that_the_layout_gives_win(tmp_path: Path) -> None:
    whole = with_parts("training", "training", "validation", "test")
    assert counts(whole, tmp_path / "split.json") == {"training": 2, "validation": 1, "test": 1}
    assert counts(with_parts(*["training"] * 3, "validation")) == {"training": 3, "validation": 1, "test": 0}
    assert counts(with_parts(*["training"] * 7, "test")) == {"training": 6, "validation": 1, "test": 1}


def test_cases_without_a_label_are_in_no_part() -> None:
    found = dataset(4)
    bare = tuple(replace(entry, label=None) for entry in found.entries)
    assert sum(counts(replace(found, entries=found.entries[:3] + bare[3:])).values()) == 3
    with pytest.raises(DataError, match=r"^list: no training cases with a label$"):
        assign(replace(found, entries=bare), None)


def test_what_was_dealt_stays_and_new_subjects_are_added(tmp_path: Path) -> None:
    record = tmp_path / "state" / "split.json"
    first = subjects(assign(dataset(10), record))
    for number in (10, 11, 20, 40):
        now = subjects(assign(dataset(number), record, seed=number))
        assert all(first[part] <= now[part] for part in first)
        assert sum(map(len, now.values())) == number
        first = now
    assert {part: len(found) for part, found in first.items()} == {"training": 26, "validation": 4, "test": 10}
    assert subjects(assign(dataset(10), record)) == {
        part: {f"person {n}" for n in range(10)} & found for part, found in first.items()
    }


def test_the_record_is_private_and_names_nobody(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    assign(dataset(10), record, keep=False)
    assert not record.exists()
    assign(dataset(10), record)
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert "person" not in record.read_text()
    assert len(json.loads(record.read_text())["parts"]) == 10
    before = record.stat()
    assign(dataset(10), record)
    assert record.stat().st_ino == before.st_ino  # nothing new, nothing written
    assert list(tmp_path.iterdir()) == [record]


def test_a_subject_that_moved_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    assign(with_parts("training", "training", "validation"), record)
    with pytest.raises(DataError) as caught:
        assign(with_parts("training", "validation", "validation"), record)
    assert str(caught.value) == (
        f"list: row 1: its subject is in validation now, and was in training at the first run ({record}); put it back, "
        "or delete that file to begin anew with a fresh model"
    )


def test_a_damaged_record_is_not_dealt_over(tmp_path: Path) -> None:
    record = tmp_path / "split.json"
    for damage in ("{", "[]", '{"format": 2, "parts": {}}', '{"format": 1, "parts": {"a": "trainig"}}'):
        record.write_text(damage)
        with pytest.raises(DataError, match=r"split.json: not a record of parts that this release reads"):
            assign(dataset(3), record)
        assert record.read_text() == damage
