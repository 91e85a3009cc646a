"""File names as layouts read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
IMAGES = VOLUMES + PICTURES


def is_image(name: str) -> bool:
    """Whether a name ends like an image file's."""
    return name.lower().endswith(IMAGES)


def stem(name: str) -> str:
    """A name without folder and image suffix."""
    return bare(Path(name).name)


def bare(path: str) -> str:
    """A path without image suffix."""
    suffix = next((s for s in IMAGES if path.lower().endswith(s)), "")
    return path[: len(path) - len(suffix)]


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without what systems hide there."""
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)


def subfolders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, by name."""
    return (path for path in visible(folder) if path.is_dir())


def part_named(word: str) -> str | None:
    """The part that a word of a listing means; None if it is none of them."""
    return _WORDS.get(word.strip().lower())


_WORDS = {
    "train": "training", "training": "training",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
