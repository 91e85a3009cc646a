"""A worker that shares no disk with whoever asks: labs and models reach it as bytes, scans do not.

It reads a lab's scans from the paths that the lab's folder names, which must lead to them on its machine too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp
from time import sleep
from typing import Any

import tomli_w

from braintorrent.config import federation_path, load_federation, load_peer, read_toml
from braintorrent.experiments.working import Work
from braintorrent.learning.opening import threads_of

START = "start.safetensors"
TRIES, PAUSE = 50, 0.1  # seconds; to delete a folder in which a process that is about to end still writes
Parcel = Mapping[str, bytes]  # path below a lab's folder -> content


def parcel(folder: Path) -> Parcel:
    """What opens this lab on another machine, as it would be opened here."""
    path, found = federation_path(folder), dict[str, bytes]()
    federation, peer = read_toml(path), read_toml(folder / "peer.toml")
    if weights := load_federation(path).start.weights:
        federation["start"]["weights"] = START
        found[START] = (path.parent / weights).read_bytes()
    if own := load_peer(folder).data:
        peer["data"] = str((folder / own).absolute())
        if listing := _listing(folder / own):
            peer["data"], found[f"data/{listing.name}"] = "data", listing.read_bytes()
    peer["threads"] = threads_of(load_peer(folder), folder)  # "auto" counts the labs that lie side by side here
    toml = {"federation.toml": federation, "peer.toml": peer}
    return found | {name: tomli_w.dumps(of).encode() for name, of in toml.items()}


def _listing(data: Path) -> Path | None:
    """The file that is all there is in a data folder: it names scans by their whole paths, as `split` writes it."""
    there = list(data.iterdir()) if data.is_dir() else []
    return there[0] if len(there) == 1 and there[0].is_file() else None


class Distant:
    """Such a worker. Models are files here only while it works with them."""

    def __init__(self, room: str) -> None:
        """room: the name of a folder, below which lies all that a run has on this machine."""
        place = Path(gettempdir()) / room
        place.mkdir(mode=0o700, exist_ok=True)
        self._room, self._labs = Path(mkdtemp(dir=place)), dict[Path, Path]()

    def perform(self, work: Work, lab: Parcel, *contents: bytes) -> tuple[Any, bytes]:
        """What came of it, and the content of the model it wrote; contents: of those it reads."""
        folder, reads, writes = self._lab(work.folder, lab), self._named(work.reads), self._named(work.writes)
        try:
            for path, content in zip(reads, contents, strict=True):
                path.write_bytes(content)
            done = replace(work, folder=folder, reads=reads, writes=writes)()
            return done, b"".join(path.read_bytes() for path in writes)
        finally:
            for path in (*reads, *writes):
                path.unlink(missing_ok=True)

    def _lab(self, folder: Path, lab: Parcel) -> Path:
        if folder not in self._labs:
            here = Path(mkdtemp(dir=self._room))
            for name, content in lab.items():
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                (here / name).write_bytes(content)
            self._labs[folder] = here
        return self._labs[folder]

    def _named(self, models: Iterable[Path]) -> tuple[Path, ...]:
        return tuple(self._room / model.name for model in models)


def clear(room: str) -> None:
    """Delete all that a run has on this machine."""
    place = Path(gettempdir()) / room
    for _ in range(TRIES):
        rmtree(place, ignore_errors=True)
        if not place.exists():
            break
        sleep(PAUSE)
