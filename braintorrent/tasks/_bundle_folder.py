"""A MONAI bundle on disk: what of it counts, the digest that pins it, and the private copy that is run.

A bundle's configuration is code, so labs compare a digest of everything that could run; where weights, prose and
results lie is left out. What runs is a copy made at start: what was digested is what is executed, and whatever a
bundle writes beside its configuration never reaches the installed folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from braintorrent.errors import ConfigError

APART = frozenset({"models", "docs", "eval"})  # weights, prose and results of the official layout: nothing that runs


def digest(folder: Path) -> str:
    """BLAKE3, 64 hex digits, over the relative path and bytes of every file that counts; ConfigError for a symlink."""
    whole = blake3()
    for path in _files(folder):
        content = blake3()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return whole.hexdigest()


def copy(folder: Path, to: Path) -> None:
    """Copy the files that count, and no other, to the folder `to`; ConfigError if that cannot be done."""
    try:
        for path in _files(folder):
            target = to / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"{folder}: the bundle cannot be copied ({error.strerror})") from None


def _files(folder: Path, top: bool = True) -> Iterator[Path]:
    """Regular files below `folder` in the order of their names."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if top and path.name in APART:
            continue
        if path.is_symlink():
            raise ConfigError(f"{path}: a bundle holds no symbolic links; put the file itself there")
        if path.is_dir():
            yield from _files(path, top=False)
        elif path.is_file():
            yield path
        else:
            raise ConfigError(f"{path}: neither a file nor a folder; a bundle holds nothing else")
