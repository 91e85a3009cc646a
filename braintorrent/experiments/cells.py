"""Results that are kept, one JSON file each, so that an experiment that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from braintorrent.errors import ConfigError
from braintorrent.storage import file_digest, write_atomically
from braintorrent.tasks.layouts import open_dataset


def keep(file: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Write what was found; returned as `kept` reads it."""
    text = json.dumps(found, indent=1) + "\n"
    write_atomically(file, text.encode(), mode=0o644)
    told: dict[str, Any] = json.loads(text)
    return told


def kept(file: Path, of: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `file` holds; None if there is none. ConfigError if that was found of anything else than `of` says."""
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    for key, value in of.items():
        if (other := found.get(key, "unknown")) != value:
            raise ConfigError(f"{file}: of {key} {other}, not {value}; move it away, or give another OUT")
    return found


def data_digest(data: Path) -> str:
    """Of all images and labels, in the order in which they are listed, wherever they lie. DataError as open_dataset."""
    whole = blake3()
    for entry in open_dataset(data).entries:
        for source in (entry.image, entry.label):
            whole.update(_content(source))
    return whole.hexdigest()[:16]


def _content(source: Any) -> bytes:
    if isinstance(source, np.ndarray):
        return repr(source.shape).encode() + source.tobytes()
    if not isinstance(source, Path):
        return repr(source).encode()
    files = sorted(source.iterdir()) if source.is_dir() else [source] if source.exists() else []
    return "".join(map(file_digest, files)).encode()


def numbers(text: str) -> tuple[int, ...]:
    """Of an option: "0,1,2"."""
    return tuple(int(number) for number in text.split(","))
