"""images/ and labels/ (or imagesTr/ and labelsTr/, as nnU-Net has them), matched by name without the suffix.

A case may be a folder with a DICOM series. imagesTs/ with labelsTs/ beside them are the test part.
"""

from __future__ import annotations

import re
from pathlib import Path

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, Entry
from braintorrent.tasks.layouts._names import is_image, stem, visible

PAIRS = {("images", "labels"): "", ("imagesTr", "labelsTr"): "", ("imagesTs", "labelsTs"): "test"}
CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's suffix of an image's channel


def recognises(path: Path) -> bool:
    """A folder with images/ and labels/."""
    return any((path / images).is_dir() and (path / labels).is_dir() for images, labels in list(PAIRS)[:2])


def read(path: Path, labels: tuple[str, ...] = (), modality: tuple[str, ...] = ()) -> Dataset:
    """Cases by name. DataError names by its place in the folder, sorted by name, what has no partner."""
    entries = [
        entry
        for (images, masks), part in PAIRS.items()
        if (path / images).is_dir() and (path / masks).is_dir()
        for entry in _pairs(path / images, path / masks, part)
    ]
    return Dataset(path, "folders", tuple(entries), labels, modality)


def _pairs(images: Path, labels: Path, part: str) -> list[Entry]:
    scans, masks = _by_name(images, channels=True), _by_name(labels, channels=False)
    for have, want, folder, other in ((scans, masks, images, labels), (masks, scans, labels, images)):
        for number, name in enumerate(have, 1):
            if name not in want:
                raise DataError(f"{folder}: file {number} by name has none of the same name in {other.name}/")
    return [
        Entry(f"{images}: file {number}", scans[name], masks[name], name, part) for number, name in enumerate(scans, 1)
    ]


def _by_name(folder: Path, *, channels: bool) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in visible(folder):
        if not (path.is_dir() or is_image(path.name)):
            continue
        name = path.name if path.is_dir() else stem(path.name)
        if channels and (match := CHANNEL.search(name)):
            if match[1] != "0000":
                raise DataError(
                    f"{folder}: file {len(found) + 1} by name is a further channel (_{match[1]}); join an image's "
                    "channels in one file"
                )
            name = name[: match.start()]
        if name in found:
            raise DataError(f"{folder}: file {len(found) + 1} by name is named as the one before it but for its suffix")
        found[name] = path
    return found
