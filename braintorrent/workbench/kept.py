"""The models a lab keeps, and the lab's folder opened beside a running node: no lock is taken.

Nothing in `state/` is written but the model `alone` of `evaluate --alone`, which no node looks at.

merged  after the last merge of a run: fits all      own     after the last local steps: fits this lab
best    best on own validation cases                 latest  the newest published version

A run that goes on leaves merged and own of its last end behind: stale, they are taken only by name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braintorrent.config import Federation, Peer, federation_path, load_federation, load_peer
from braintorrent.errors import ConfigError
from braintorrent.learning.opening import read_weights
from braintorrent.node.going_on import current
from braintorrent.node.keeping import told
from braintorrent.node.lab import check_folder
from braintorrent.storage import Ledger, StatePaths

if TYPE_CHECKING:
    from braintorrent.learning.inference import Network

KEPT = ("merged", "best", "latest", "own")
"""In the order in which one is taken where none is named."""


@dataclass(frozen=True)
class Kept:
    """One model on disk. said: what the JSON beside it says, {} where there is none or it is of another model."""

    name: str
    path: Path
    content: str = ""
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The own version it belongs to, "" if nobody wrote it down."""
        return str(self.said.get("version", ""))


@dataclass(frozen=True)
class Opened:
    """A peer folder, read but not locked."""

    folder: Path
    federation: Federation
    peer: Peer
    state: StatePaths


def open_folder(folder: Path) -> Opened:
    """The configuration of a peer folder; ConfigError where it is not one."""
    check_folder(folder)
    return Opened(folder, load_federation(federation_path(folder)), load_peer(folder), StatePaths(folder))


@contextmanager
def borrowed(record: Path) -> Iterator[Path]:
    """A copy of the record of the parts, to be read or made elsewhere: looking must not be what fixes them."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / record.name
        if record.exists():
            shutil.copyfile(record, copy)
        yield copy


def find(lab: Opened, wanted: str | None = None) -> Kept:
    """A model by name or path; by default the first of KEPT that is not stale, else the newest version in the ledger.

    ConfigError if it is not there.
    """
    if wanted is not None and wanted not in KEPT:
        path = Path(wanted)
        if not path.is_file():
            raise ConfigError(f"{path}: no such file, and no model is called so; names: {', '.join(KEPT)}")
        return Kept(path.stem, path)
    newest = _newest(lab)
    for kept in _there(lab, KEPT if wanted is None else (wanted,)):
        if wanted or not _stale(kept, newest):
            return kept
    if wanted is None and newest is not None:
        return newest
    there = ", ".join(name for name in KEPT if wanted and (lab.state.models / f"{name}.safetensors").is_file())
    what = f"no model {wanted} is kept" if wanted else "no model yet"
    raise ConfigError(f"{lab.folder}: {what}; {f'there are: {there}' if there else f'braintorrent run {lab.folder}'}")


def every(lab: Opened) -> list[Kept]:
    """All that are not stale, in the order of a run: own, merged, best, latest; else the newest in the ledger."""
    newest = _newest(lab)
    return [k for k in _there(lab, ("own", "merged", "best", "latest")) if not _stale(k, newest)] or [find(lab)]


def load(kept: Kept, network: Network) -> Kept:
    """Put a kept model into the network, and say what is known of it: a crash may leave another model's JSON."""
    weights = read_weights(kept.path, network.schema)
    network.load(weights)
    content = weights.digest
    return Kept(kept.name, kept.path, content, kept.said if kept.said.get("content") == content else {})


def versions(lab: Opened) -> int:
    """How many versions this lab trained."""
    if not lab.state.ledger.exists():
        return 0
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        newest = ledger.newest()
    return newest.version.counter if newest else 0


def _newest(lab: Opened) -> Kept | None:
    if not lab.state.ledger.exists():
        return None
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        newest = current(ledger)
    if newest is None:
        return None
    said = {"model": "newest", "version": str(newest.version), "content": newest.content, "stage": "own"}
    return Kept("newest", lab.state.blobs / newest.content, said=said)


def _there(lab: Opened, names: Iterable[str]) -> Iterator[Kept]:
    for name in names:
        path = lab.state.models / f"{name}.safetensors"
        if path.is_file():
            yield Kept(name, path, said=told(lab.state.models, name))


def _stale(kept: Kept, newest: Kept | None) -> bool:
    """Of the end of a run that went on; an older release did not write down the version."""
    return kept.name in ("merged", "own") and newest is not None and kept.version not in ("", newest.version)
