"""All that one lab brings to a federation, opened and checked before anything is said to anyone.

Every fault found here is this lab's own (errors.LocalError): one clear line, exit code 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from braintorrent.node.rotating import finish, unfinished
from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.records import Identity
from braintorrent.storage import StateFolder, StatePaths, write_atomically


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
        check_folder(folder)
        peer = load_peer(folder)
        path = federation_path(folder)
        federation = load_federation(path)
        return cls.assemble(folder, path, federation, peer, open_learner, folder / "peer.toml")

    @classmethod
    def assemble(
        cls, folder: Path, path: Path, federation: Federation, peer: Peer, bring: Callable[..., Learner],
        where: Path | str,
    ) -> Lab:  # fmt: skip
        """Lock the folder and open what it takes; LocalError likewise.

        bring: called like learning.open_learner; where: the peer's options, for errors.
        """
        for fault in address_faults(peer, where):
            raise ConfigError(fault)
        state = StateFolder(folder)
        try:
            if unfinished(state):
                finish(state, federation.id)
            identity = make_identity(state)
            roster = Roster(state.roster)
            method = plugins.load("methods", federation.method.name).create(**federation.method.options)
            for fault in method_faults(method, federation.method.name, peer, where):
                raise ConfigError(fault)
            learner = bring(federation, peer, folder, method, state.split)
            start = learner.weights().digest
            facts = {"start.weights": start, "task.schema": learner.schema.digest, **getattr(learner, "facts", {})}
            agreed = agreement(federation, facts)
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


def address_faults(peer: Peer, where: Path | str) -> Iterator[str]:
    """Each address of peer.toml that cannot be listened on or dialled, in words."""
    for key, addresses in (("listen", [peer.listen]), ("peers", peer.peers), ("advertise", peer.advertise)):
        for address in addresses:
            try:
                port = parse_address(address).port
            except ValueError as error:
                yield f"{where}: {key}: {error}"
                continue
            if not port and key != "listen":
                yield f"{where}: {key}: {address}: port 0 cannot be dialled"


def method_faults(method: Method, name: str, peer: Peer, where: Path | str) -> Iterator[str]:
    """Each option of peer.toml under which the agreed method could never do what it is for, in words."""
    least, most = max(method.needs.candidates, method.needs.adopting), peer.timing.max_merge
    if least > most:
        yield f"{where}: timing.max_merge: {most} is too few for method {name}, which needs {least} others in a merge"
    if peer.gates.max_share < 1 and type(method).combine is not Method.combine:
        yield f"{where}: gates.max_share: method {name} counts all labs alike, whatever they claim; leave it out"


def policy(peer: Peer, method: Method) -> Policy:
    """The protocol's knobs from peer.toml, and what the method wants of it."""
    t, s = peer.timing, peer.stop
    return Policy(
        ask_every=t.ask_every, ask_deadline=t.ask_deadline, fanout=None if t.fanout == "all" else t.fanout,
        max_merge=t.max_merge, everyone=method.needs.everyone, quorum=t.quorum,
        mean_interval=t.interval if t.cadence == "poisson" else None,
        patience=t.patience, alone_after=t.alone_after, linger=t.linger,
        stop=StopRule(s.versions, s.minutes, s.target, s.patience),
    )  # fmt: skip


def check_folder(folder: Path) -> None:
    """ConfigError unless `folder` is a peer folder: a misspelt name must not make another lab."""
    if not (folder / "peer.toml").is_file():
        what = "no peer.toml in it" if folder.is_dir() else "no such folder"
        make = "make one with `braintorrent new` or `braintorrent join`, or give the folder (-C)"
        raise ConfigError(f"{folder}: {what}; {make}")


def ensure_identity(folder: Path) -> Identity:
    """The key of a peer folder, made if there is none. Needs neither federation nor data."""
    check_folder(folder)
    return make_identity(StatePaths(folder))


def make_identity(state: StatePaths) -> Identity:
    """The key of a state folder, made if there is none."""
    if not state.key.exists():
        state.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(state.path / ".gitignore", b"*\n")  # before there is anything to keep private
        Identity.create().save(state.key)
    return Identity.load(state.key)


def address_hints(folder: Path) -> list[str]:
    """Where others may reach this peer, as far as known before it runs; empty when its port is chosen at start."""
    return hints(load_peer(folder), folder / "peer.toml")


def hints(peer: Peer, where: Path | str) -> list[str]:
    """The same, of a peer's options."""
    try:
        listening = parse_address(peer.listen)
    except ValueError as error:
        raise ConfigError(f"{where}: listen: {error}") from None
    return peer.advertise or (list(own_addresses(listening)) if listening.port else [])
