"""One folder of images per class; or such folders in train/, val/ and test/. A class's name is its folder's.

Each image is a subject of its own. Where a subject has several images, a manifest with a column `subject` says so.
"""

from __future__ import annotations

from pathlib import Path

from braintorrent.tasks.layouts import Dataset, Entry
from braintorrent.tasks.layouts._names import is_image, part_named, stem, subfolders, visible


def recognises(path: Path) -> bool:
    """A folder of folders with images in them."""
    return path.is_dir() and any(_images(folder) for _, folder in _classes(path))


def read(path: Path) -> Dataset:
    """Images by class and name; files that are no images are passed over."""
    entries: list[Entry] = []
    for part, folder in _classes(path):
        for number, image in enumerate(_images(folder), 1):
            name = stem(image.name) if part else f"{folder.name}/{stem(image.name)}"
            where = f"{path}: {folder.relative_to(path)} image {number}"
            entries.append(Entry(where, image, (folder.name,), f"{part}/{folder.name}/{name}", part))
    labels = sorted({label for entry in entries for label in entry.label or ()})  # type: ignore[type-var, union-attr]
    return Dataset(path, "classes", tuple(entries), tuple(map(str, labels)))


def _classes(path: Path) -> list[tuple[str, Path]]:
    """(part, folder of a class); part "" where the folders of classes lie at once in `path`."""
    top = list(subfolders(path))
    parts = [part_named(folder.name) for folder in top]
    if top and all(parts) and not any(_images(folder) for folder in top):
        return [(str(part), inner) for part, folder in zip(parts, top, strict=True) for inner in subfolders(folder)]
    return [("", folder) for folder in top]


def _images(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.is_file() and is_image(path.name)]
