"""The models a lab keeps, and the lab's folder opened beside a running node: no lock is taken, nothing is written.

merged  after the last merge of a run: fits all      own     after the last local steps: fits this lab
best    best on own validation cases                 latest  the newest published version
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braintorrent.config import Federation, Peer, federation_path, load_federation, load_peer
from braintorrent.errors import ConfigError
from braintorrent.learning.opening import read_weights
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


def find(lab: Opened, wanted: str | None = None) -> Kept:
    """A model by name or path; by default merged, else best, else latest, else the newest version in the ledger."""
    if wanted is not None and wanted not in KEPT:
        path = Path(wanted)
        if not path.is_file():
            raise ConfigError(f"{path}: no such file, and no model is called so; names: {', '.join(KEPT)}")
        return Kept(path.stem, path)
    for name in KEPT if wanted is None else (wanted,):
        path = lab.state.models / f"{name}.safetensors"
        if path.is_file():
            return Kept(name, path, said=_said(path))
    if wanted is None and (newest := _newest(lab)) is not None:
        return newest
    there = ", ".join(name for name in KEPT if wanted and (lab.state.models / f"{name}.safetensors").is_file())
    what = f"no model {wanted} is kept" if wanted else "no model yet"
    raise ConfigError(f"{lab.folder}: {what}; {f'there are: {there}' if there else f'braintorrent run {lab.folder}'}")


def every(lab: Opened) -> list[Kept]:
    """All that are kept, in the order of a run: own, merged, best, latest; else the newest version in the ledger."""
    there = [find(lab, name) for name in ("own", "merged", "best", "latest")
             if (lab.state.models / f"{name}.safetensors").is_file()]  # fmt: skip
    return there or [find(lab)]


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
        newest = ledger.newest()
    if newest is None:
        return None
    said = {"model": "newest", "version": str(newest.version), "content": newest.content, "stage": "own"}
    return Kept("newest", lab.state.blobs / newest.content, said=said)


def _said(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
