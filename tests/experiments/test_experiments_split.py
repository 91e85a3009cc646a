"""Splits: by each rule, complete, by subject, parts kept; and back to one data set."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from braintorrent.errors import DataError
from braintorrent.experiments.dealing import Subject, apportion, deal, with_parts
from braintorrent.experiments.split import Share, counts, pool, split
from braintorrent.tasks.layouts import PARTS, Dataset, Entry, open_dataset

RULES = ("even", "size", "label")
MASKS = ("background", "left")


def scans(folder: Path, cases: int, per_subject: int = 1) -> Dataset:
    """Case n has n voxels of foreground, of 2 mm³ each."""
    listed = []
    for number in range(cases):
        entry = {"image": f"i/{number}.nii.gz", "label": f"l/{number}.nii.gz", "subject": f"s{number // per_subject}"}
        label = np.zeros((6, 6, 6), np.uint8)
        label.ravel()[:number] = 1
        for key, array in (("image", np.ones_like(label)), ("label", label)):
            (folder / entry[key]).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])), folder / entry[key])
        listed.append(entry)
    described = {"labels": dict(enumerate(MASKS)), "training": listed, "test": ["./imagesTs/unlabelled.nii.gz"]}
    (folder / "dataset.json").write_text(json.dumps(described))
    return open_dataset(folder)


def pictures(folder: Path, parts: dict[str, tuple[int, int]]) -> Dataset:
    """part -> number of images of class 0 and of class 1; every image is another."""
    folder.mkdir(parents=True)
    arrays, drawn = {}, 0
    for part, (zeros, ones) in parts.items():
        count = zeros + ones
        values = np.arange(drawn, drawn + count)
        arrays[f"{part}_images"] = np.broadcast_to(values[:, None, None], (count, 4, 4)).astype(np.uint16)
        arrays[f"{part}_labels"] = (np.arange(count) >= zeros).astype(np.uint8)[:, None]
        drawn += count
    np.savez(folder / "data.npz", **arrays)
    return open_dataset(folder)


def key(entry: Entry) -> str:
    return str(entry.image if isinstance(entry.image, Path) else entry.image.ravel()[0])


def dealt(
    dataset: Dataset, folder: Path, labels: tuple[str, ...], by: str, labs: int = 3, seed: int = 0
) -> list[Share]:
    folders = {name: folder / name for name in "abcdef"[:labs]}
    return split(dataset, folders, labels, by, seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", RULES)
def test_every_case_goes_to_one_lab_and_subjects_stay_whole(tmp_path: Path, by: str) -> None:
    dataset = scans(tmp_path / "source", 48, per_subject=2)
    shares = dealt(dataset, tmp_path / "labs", MASKS, by)
    opened = [open_dataset(share.folder) for share in shares]
    images = [key(entry) for lab in opened for entry in lab.entries]
    assert sorted(images) == sorted(key(entry) for entry in dataset.entries if entry.label is not None)
    assert all(Path(image).is_file() for image in images)
    places: dict[str, set[tuple[int, str]]] = {}
    for number, lab in enumerate(opened):
        for entry in lab.entries:
            places.setdefault(entry.subject, set()).add((number, entry.part))
    assert all(len(place) == 1 for place in places.values())
    for share in shares:
        assert all(share.counts[part] >= 1 for part in PARTS)
        assert share.counts == counts(share.folder)
        assert sum(share.counts.values()) == len(open_dataset(share.folder).entries)
    again = dealt(dataset, tmp_path / "again", MASKS, by)
    assert [share.counts for share in again] == [share.counts for share in shares]
    assert [key(e) for e in open_dataset(again[0].folder).entries] == [key(e) for e in opened[0].entries]
    other = dealt(dataset, tmp_path / "other", MASKS, by, seed=1)
    assert [key(e) for e in open_dataset(other[0].folder).entries] != [key(e) for e in opened[0].entries]


def test_sizes_follow_the_rule(tmp_path: Path) -> None:
    dataset = scans(tmp_path / "source", 48)

    def sizes(by: str) -> list[int]:
        return [sum(share.counts.values()) for share in dealt(dataset, tmp_path / by, MASKS, by)]

    assert sizes("even") == [16, 16, 16]
    assert sizes("size") == [8, 16, 24]
    assert sizes("label") == [16, 16, 16]


def test_by_label_sorts_scans_by_their_foreground(tmp_path: Path) -> None:
    shares = dealt(scans(tmp_path / "source", 48), tmp_path / "labs", MASKS, "label")
    volumes = [share.amounts[1] for share in shares]
    assert volumes == pytest.approx([2e-3 * mean for mean in (7.5, 23.5, 39.5)])  # mL
    small = open_dataset(shares[0].folder)
    assert {int(Path(key(entry)).name.partition(".")[0]) for entry in small.entries} == set(range(16))
    tested = [int(Path(key(entry)).name.partition(".")[0]) for entry in small.entries if entry.part == "test"]
    assert max(tested) > 3  # the smallest four are not the test part


@pytest.mark.parametrize("by", RULES)
def test_parts_of_the_data_are_kept(tmp_path: Path, by: str) -> None:
    dataset = pictures(tmp_path / "source", {"train": (60, 240), "val": (20, 40)})
    part_of = {key(entry): entry.part for entry in dataset.entries}
    shares = dealt(dataset, tmp_path / "labs", ("no", "yes"), by, labs=4)
    seen = Counter()
    for share in shares:
        assert share.counts["test"] == 0
        for entry in open_dataset(share.folder).entries:
            assert part_of[key(entry)] == entry.part
            seen[entry.part] += 1
    assert seen == {"training": 300, "validation": 60}
    assert [sum(column) for column in zip(*(share.amounts for share in shares), strict=True)] == [80, 280]
    assert not any(share.absent for share in shares)  # every lab has a few of each class, in each part


def test_by_label_skews_classes(tmp_path: Path) -> None:
    dataset = pictures(tmp_path / "source", {"train": (100, 400), "val": (30, 60)})

    def parts(by: str) -> list[float]:
        found = dealt(dataset, tmp_path / by, ("no", "yes"), by, labs=4)
        return [share.amounts[0] / sum(share.amounts) for share in found]

    assert np.ptp(parts("even")) < 0.02
    assert np.ptp(parts("label")) > 0.2


def test_classes_too_few_for_all_labs_are_told(tmp_path: Path) -> None:
    dataset = pictures(tmp_path / "source", {"train": (2, 90), "val": (2, 30)})
    shares = dealt(dataset, tmp_path / "labs", ("no", "yes"), "label", labs=4)
    lacking = [share for share in shares if share.absent]
    assert len(lacking) >= 2
    assert all("no" in names for share in lacking for names in share.absent.values())


def test_only_what_is_missing_is_dealt(tmp_path: Path) -> None:
    dataset = pictures(tmp_path / "source", {"train": (30, 30), "test": (9, 9)})
    for share in dealt(dataset, tmp_path / "labs", ("no", "yes"), "even"):
        assert share.counts == {"training": 16, "validation": 4, "test": 6}
    whole = pictures(tmp_path / "whole", {"train": (30, 30)})
    for share in dealt(whole, tmp_path / "more", ("no", "yes"), "even"):
        assert share.counts == {"training": 14, "validation": 2, "test": 4}
        assert not share.absent


@pytest.mark.parametrize("by", RULES)
def test_too_few_subjects_are_refused(tmp_path: Path, by: str) -> None:
    with pytest.raises(DataError, match="5 labelled subjects in training are too few for 2 labs; each needs 3"):
        dealt(scans(tmp_path / "source", 10, per_subject=2), tmp_path / "labs", MASKS, by, labs=2)
    tiny = pictures(tmp_path / "tiny", {"train": (9, 9), "val": (1, 1)})
    with pytest.raises(DataError, match="2 labelled subjects in validation are too few for 3 labs; each needs 1"):
        dealt(tiny, tmp_path / "more", ("no", "yes"), by)
    assert not list((tmp_path).glob("labs/*"))


def test_pooling_undoes_a_split(tmp_path: Path) -> None:
    sources = {
        "scans": (scans(tmp_path / "scans", 12), MASKS),
        "pictures": (pictures(tmp_path / "pictures", {"train": (20, 20), "val": (9, 9)}), ("no", "yes")),
    }
    for name, (dataset, labels) in sources.items():
        shares = dealt(dataset, tmp_path / f"{name}-labs", labels, "even")
        pooled = open_dataset(pool([share.folder for share in shares], tmp_path / f"{name}-pooled"))
        for part in PARTS:
            expected = [key(e) for share in shares for e in open_dataset(share.folder).entries if e.part == part]
            assert [key(entry) for entry in pooled.entries if entry.part == part] == expected


def test_shares_are_whole_numbers_in_proportion() -> None:
    assert apportion(10, [1, 1, 1], 0) == [4, 3, 3]
    assert apportion(15, [1, 2, 3, 4, 5], 1) == [1, 2, 3, 4, 5]
    assert apportion(9, [0, 0, 1], 3) == [3, 3, 3]
    generator = np.random.default_rng(0)
    for _ in range(200):
        labs = int(generator.integers(1, 9))
        total = int(generator.integers(3 * labs, 100))
        weights = generator.dirichlet([0.5] * labs)
        found = apportion(total, weights, 3)
        assert sum(found) == total
        assert min(found) >= 3
        free = [(c, w * total) for c, w in zip(found, weights, strict=True) if c > 3]
        assert all(count <= ideal + 1 for count, ideal in free)


def test_a_deal_of_one_part_takes_the_shares_of_another() -> None:
    def subjects(part: str, count: int) -> list[Subject]:
        return [Subject(part, (), "ill" if n % 2 else "well") for n in range(count)]

    first = [len(lab) for lab in deal(subjects("training", 1000), 3, "label", 0)]
    second = [len(lab) for lab in deal(subjects("validation", 100), 3, "label", 0)]
    assert np.allclose(np.array(first) / 10, second, atol=6)  # at least three of each class, wherever


def test_each_class_of_a_lab_is_in_each_part() -> None:
    mine = [Subject("training", (), stratum) for stratum in ["common"] * 20 + ["rare"] * 3 + ["single"]]
    found = Counter((subject.stratum, part) for subject, part in with_parts(mine, ("test", "validation")))
    assert found == {
        ("common", "test"): 5, ("common", "validation"): 2, ("common", "training"): 13, ("rare", "test"): 1,
        ("rare", "validation"): 1, ("rare", "training"): 1, ("single", "training"): 1,
    }  # fmt: skip


def test_a_subject_in_two_parts_is_refused_before_it_can_reach_two_labs(tmp_path: Path) -> None:
    dataset = scans(tmp_path / "data", 12)
    entries = dataset.entries + tuple(replace(entry, part="test") for entry in dataset.entries[:2])
    with pytest.raises(DataError, match="test"):
        dealt(replace(dataset, entries=entries), tmp_path / "labs", MASKS, "even")


def test_labs_with_few_of_each_class_have_parts_all_the_same() -> None:
    few = [Subject("training", (), stratum) for stratum in "aabbcc"]
    assert Counter(part for _, part in with_parts(few, ("test", "validation"))) == {
        "training": 3, "validation": 1, "test": 2,
    }  # fmt: skip
