"""dataset.json, as in the Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022).

Cases are {"image": path, "label": path} under "training", and here also under "validation" and "test"; "subject" may
be added; without it a case's subject is its file's name, and its path where files in several folders share a name.
Paths are relative to the folder, or absolute. Test cases without a label, as the Decathlon's own, are
listed but nobody trains or measures on them. nnU-Net's dataset.json lists no cases: then imagesTr/ and labelsTr/ do.
"""

from __future__ import annotations

import json
import posixpath
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import PARTS, Dataset, Entry, folders
from braintorrent.tasks.layouts._names import bare, stem


def recognises(path: Path) -> bool:
    """A folder with dataset.json, or that file."""
    return path.name == "dataset.json" or (path / "dataset.json").is_file()


def read(path: Path) -> Dataset:
    """The listed cases in their order; names of labels and channels as the listing has them."""
    file = path if path.is_file() else path / "dataset.json"
    try:
        listed = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable ({error})") from None
    if not isinstance(listed, dict) or not all(isinstance(listed.get(part, []), list) for part in PARTS):
        raise DataError(f"{file}: not a Decathlon dataset.json")
    labels = _by_index(listed.get("labels"), file, "labels")
    modality = _by_index(listed.get("modality") or listed.get("channel_names"), file, "modality")
    if "training" not in listed and folders.recognises(file.parent):
        return folders.read(file.parent, labels, modality)
    entries = [
        _entry(case, part, file, f"{file}: {part} case {number}")
        for part in PARTS
        for number, case in enumerate(listed.get(part, []))
    ]
    return Dataset(file.parent, "decathlon", tuple(_told_apart(entries, listed)), labels, modality)


def _told_apart(entries: list[Entry], listed: dict[str, Any]) -> list[Entry]:
    """Subjects that the listing does not name: sub-01/t1.nii.gz and sub-02/t1.nii.gz are two."""
    cases = [case for part in PARTS for case in listed.get(part, [])]
    named = [bool(isinstance(case, dict) and case.get("subject")) for case in cases]
    paths = [bare(posixpath.normpath(case if isinstance(case, str) else case["image"])) for case in cases]
    sharing: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        sharing[stem(path)].add(path)
    return [
        entry if known or len(sharing[stem(path)]) == 1 else replace(entry, subject=path)
        for entry, known, path in zip(entries, named, paths, strict=True)
    ]


def _entry(case: Any, part: str, file: Path, where: str) -> Entry:
    if part == "test" and isinstance(case, str):
        case = {"image": case}
    if not (isinstance(case, dict) and all(isinstance(case.get(k, ""), str) for k in ("image", "label", "subject"))):
        case = {}
    image, label = case.get("image"), case.get("label")
    if not image or not (label or part == "test"):
        raise DataError(f"{where}: needs an image and a label")
    return Entry(
        where, file.parent / image, file.parent / label if label else None, case.get("subject") or stem(image), part
    )


def _by_index(names: Any, file: Path, key: str) -> tuple[str, ...]:
    """Names by index from {"0": name}, from nnU-Net's {name: 0}, or from a list; () where there are none."""
    if not names:
        return ()
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        if all(isinstance(value, int) for value in names.values()):
            names = {value: name for name, value in names.items()}
        found = {int(value): str(name) for value, name in names.items()}
    except (AttributeError, ValueError, TypeError):
        raise DataError(f'{file}: {key}: needs a name per value, as {{"0": "background", "1": ...}}') from None
    for value in range(max(found) + 1):
        if value not in found:
            raise DataError(f"{file}: {key}: value {value} has no name; name every value from 0 up")
    return tuple(found[value] for value in sorted(found))
