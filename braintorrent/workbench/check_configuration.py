"""Configuration: every wrong key of both files, the plug-ins they name, key, roster, start weights."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from braintorrent import plugins
from braintorrent.config import Federation, Peer, Section, faults, federation_path, read_toml
from braintorrent.errors import ConfigError, DataError, FormatError, IdentityError
from braintorrent.methods import Method
from braintorrent.node.lab import address_faults, method_faults
from braintorrent.node.roster import Roster
from braintorrent.records import Identity
from braintorrent.storage import StatePaths, file_digest
from braintorrent.workbench.check_findings import Group


@dataclass(frozen=True, slots=True)
class Setup:
    """What later checks build on. federation, plugin and method are None where they could not be read."""

    folder: Path
    peer: Peer
    federation: Federation | None
    federation_file: Path
    plugin: Any
    method: Method | None
    roster: Roster | None

    @property
    def paths(self) -> StatePaths:
        """Where the peer's private state lies."""
        return StatePaths(self.folder)

    @property
    def data(self) -> Path:
        """The lab's data."""
        return self.folder / self.peer.data


def check_configuration(group: Group, folder: Path) -> Setup | None:
    """What could be read; None without a peer.toml that holds."""
    peer = _read(group, Peer, folder / "peer.toml")
    if peer is not None:
        _addresses(group, peer, folder / "peer.toml")
    path, federation = folder / "federation.toml", None
    try:
        path = federation_path(folder)
        federation = _read(group, Federation, path)
    except ConfigError as error:
        group.error("federation", str(error))
    plugin = _task(group, federation, path) if federation else None
    method = _method(group, federation, path) if federation else None
    if peer is not None and federation is not None and method is not None:
        for fault in method_faults(method, federation.method.name, peer, folder / "peer.toml"):
            group.error("method", fault, do="correct peer.toml")
    if federation is not None:
        _start_weights(group, federation, path)
    _key(group, folder)
    roster = _roster(group, folder)
    if not group.failed:
        group.ok("configuration", f"{folder / 'peer.toml'} and {path} hold; every key is known")
    if peer is None:
        group.note("configuration", "data, machine and network were not looked at: peer.toml comes first")
        return None
    return Setup(folder, peer, federation, path, plugin, method, roster)


def _read(group: Group, model: Any, path: Path) -> Any:
    """The file as a `model`, a finding for each fault, and what is left without the tables and keys at fault."""
    try:
        content = read_toml(path)
    except ConfigError as error:
        group.error("unreadable", str(error), do="correct the file; it is TOML")
        return None
    for fault in faults(model, content, str(path)).values():
        group.error("key", fault, do=f"correct {path.name}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
        with contextlib.suppress(ValidationError):
            return model.model_validate({key: value for key, value in content.items() if key not in wrong})
    return None


def _addresses(group: Group, peer: Peer, path: Path) -> None:
    for fault in address_faults(peer, path):
        group.error("address", fault, do=f"correct {path.name}")


def _task(group: Group, federation: Federation, path: Path) -> Any:
    """The task plug-in if its options hold. It is opened on an empty folder: what it says of options comes first."""
    where, before = f"{path}: task", len(group.findings)
    if not isinstance(federation.task.get("kind"), str):
        group.error("task", f"{where}.kind: needed, the name of a task plug-in", do=f"one of {_names('tasks')}")
        return None
    try:
        plugin = plugins.load("tasks", federation.kind)
    except ConfigError as error:
        group.error("task", f"{path}: task.kind: {error}")
        return None
    options = getattr(plugin, "Options", None)
    if isinstance(options, type) and issubclass(options, Section):
        for fault in faults(options, federation.task, where).values():
            group.error("key", fault, do="agree on it with the other labs")
    if len(group.findings) == before and hasattr(plugin, "open_task"):
        try:
            with tempfile.TemporaryDirectory() as nothing:
                plugin.open_task(federation.task, Path(nothing), "cpu", where)
        except ConfigError as error:
            group.error("task", str(error), do="agree on it with the other labs")
        except DataError:
            pass  # there is no data in an empty folder: all that comes before it holds
    return plugin if len(group.findings) == before else None


def _method(group: Group, federation: Federation, path: Path) -> Method | None:
    try:
        method: Method = plugins.load("methods", federation.method.name).create(**federation.method.options)
        return method
    except ConfigError as error:
        group.error("method", f"{path}: method.name: {error}")
    except (TypeError, ValueError) as error:
        group.error("method", f"{path}: method.options: {error}")
    return None


def _names(kind: str) -> str:
    return ", ".join(plugins.names(kind))


def _start_weights(group: Group, federation: Federation, path: Path) -> None:
    start = federation.start
    if not start.weights:
        return
    weights = path.parent / start.weights
    if not weights.is_file():
        group.error("start weights", "start.weights: no such file", str(weights), "copy the file the federation shares")
        return
    found = file_digest(weights)
    if start.digest and found != start.digest:
        group.error(
            "start weights", f"start.digest: the file is {found[:12]}, agreed are {start.digest[:12]}", str(weights),
            "copy the file again; a lab that starts elsewhere destroys every merge",
        )  # fmt: skip


def _key(group: Group, folder: Path) -> None:
    path = StatePaths(folder).key
    if not path.exists():
        group.note("private key", "no key yet; it is made at the first start", do=f"braintorrent id {folder}")
        return
    try:
        Identity.load(path)
    except IdentityError as error:
        group.error("private key", str(error))


def _roster(group: Group, folder: Path) -> Roster | None:
    try:
        roster = Roster(StatePaths(folder).roster)
    except FormatError as error:
        group.error("roster", str(error), do="move it away and trust the other labs again")
        return None
    if not roster.ids:
        group.warning("roster", "nobody is trusted yet: this lab would train alone",
                      do=f"braintorrent invite NAME -C {folder} (by hand: id and trust, on both sides)")  # fmt: skip
    else:
        group.ok("roster", f"trusts {roster.names}")
    return roster
