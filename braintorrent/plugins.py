"""Find a plug-in by kind and name: a built-in file, or an entry point an installed package declares."""

from __future__ import annotations

import contextlib
import gc
import importlib
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from braintorrent.errors import ConfigError

KINDS = ("methods", "tasks")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def names(kind: str) -> list[str]:
    """Every plug-in of a kind that `load` can find, sorted."""
    folder = Path(__file__).parent / kind
    built_in = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")}
    return sorted(built_in | {e.name for e in entry_points(group=f"braintorrent.{kind}")})


def load(kind: str, name: str) -> ModuleType | Any:
    """The module `braintorrent/<kind>/<name>.py`, or the object of entry point group `braintorrent.<kind>`."""
    if kind not in KINDS:
        raise ValueError(f"no plug-in kind {kind!r}")
    if _NAME.fullmatch(name):
        module = f"braintorrent.{kind}.{name}"
        with _no_collecting():
            if find_spec(module) is not None:
                return importlib.import_module(module)
            for entry in entry_points(group=f"braintorrent.{kind}", name=name):
                return entry.load()
    raise ConfigError(f"no plug-in {name!r} in {kind}; there are: {', '.join(names(kind))}")


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    """Importing MONAI makes a million objects and no garbage; looking for garbage all the while takes a fifth of it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
