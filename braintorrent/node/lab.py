"""All that one lab brings to a federation, opened and checked before anything is said to anyone.

Every fault found here is this lab's own (errors.LocalError): one clear line, exit code 2.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from braintorrent import plugins
from braintorrent.config import Federation, Peer, agreement, federation_path, load_federation, load_peer
from braintorrent.errors import ConfigError
from braintorrent.learning import open_learner
from braintorrent.learning.contract import Learner
from braintorrent.methods import Method
from braintorrent.network.address import own_addresses, parse_address
from braintorrent.node.roster import Roster
from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.records import Identity
from braintorrent.storage import StateFolder, StatePaths


@dataclass
class Lab:
    """A peer folder, opened: configuration, identity, roster, learner, and the locked state folder."""

    folder: Path
    federation_file: Path
    federation: Federation
    peer: Peer
    state: StateFolder
    identity: Identity
    roster: Roster
    method: Method
    learner: Learner
    agreement: dict[str, str]
    start: str  # digest of the weights all labs begin from

    @classmethod
    def open(cls, folder: Path) -> Lab:
        """Read, check and lock a peer folder; LocalError if anything of this lab's own is wrong."""
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; a peer folder holds a peer.toml")
        peer = load_peer(folder)
        path = federation_path(folder)
        federation = load_federation(path)
        _check_addresses(peer, folder / "peer.toml")
        state = StateFolder(folder)
        try:
            if not state.key.exists():
                Identity.create().save(state.key)
            identity = Identity.load(state.key)
            roster = Roster(state.roster)
            method = plugins.load("methods", federation.method.name).create(**federation.method.options)
            learner = open_learner(federation, peer, folder, method)
            start = learner.weights().digest
            agreed = agreement(federation, {"start.weights": start, "task.schema": learner.schema.digest})
        except BaseException:
            state.close()
            raise
        return cls(folder, path, federation, peer, state, identity, roster, method, learner, agreed, start)

    @property
    def me(self) -> str:
        """This peer's id."""
        return self.identity.id

    @property
    def members(self) -> frozenset[str]:
        """This peer and all it trusts."""
        return self.roster.ids | {self.me}


def _check_addresses(peer: Peer, path: Path) -> None:
    for key, addresses in (("listen", [peer.listen]), ("peers", peer.peers), ("advertise", peer.advertise)):
        for address in addresses:
            try:
                port = parse_address(address).port
            except ValueError as error:
                raise ConfigError(f"{path}: {key}: {error}") from None
            if not port and key != "listen":
                raise ConfigError(f"{path}: {key}: {address}: port 0 cannot be dialled")


def policy(peer: Peer) -> Policy:
    """The protocol's knobs from peer.toml."""
    t, s = peer.timing, peer.stop
    return Policy(
        ask_every=t.ask_every, ask_deadline=t.ask_deadline, fanout=None if t.fanout == "all" else t.fanout,
        max_merge=t.max_merge, mean_interval=t.interval if t.cadence == "poisson" else None, quorum=t.quorum,
        patience=t.patience, alone_after=t.alone_after, linger=t.linger,
        stop=StopRule(s.versions, s.minutes, s.target, s.patience),
    )  # fmt: skip


def ensure_identity(folder: Path) -> Identity:
    """The key of a peer folder, made if there is none. Needs neither federation nor data."""
    if not folder.exists():
        folder.mkdir(parents=True)
    key = StatePaths(folder).key
    if not key.exists():
        Identity.create().save(key)
    return Identity.load(key)


def display_name(folder: Path) -> str:
    """The lab's name: of peer.toml, or of the folder while there is none."""
    if (folder / "peer.toml").is_file():
        return load_peer(folder).name
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._")[:63]
    return name or f"lab-{os.getpid()}"


def address_hints(folder: Path) -> list[str]:
    """Where others may reach this peer, as far as known before it runs; empty when its port is chosen at start."""
    if not (folder / "peer.toml").is_file():
        return []
    peer = load_peer(folder)
    try:
        listening = parse_address(peer.listen)
    except ValueError as error:
        raise ConfigError(f"{folder / 'peer.toml'}: listen: {error}") from None
    return peer.advertise or (list(own_addresses(listening)) if listening.port else [])
