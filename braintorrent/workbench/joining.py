"""Join: from a code to a peer folder. Look, check, let a person decide; only then is anything written.

joining_terms.py   what an offer may say

The order of writing makes every step repeatable: first the key, then the inviter's word that it is trusted, then the
roster, and peer.toml last. A folder without peer.toml is half made; the next `join` into it goes on with its key.
"""

from __future__ import annotations

import asyncio
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from braintorrent.config import Federation, Peer, load_peer, validate
from braintorrent.errors import ConfigError
from braintorrent.network.joining import Welcome, knock
from braintorrent.network.wire import clean
from braintorrent.node.agreeing import MAX_CLOCK_SKEW
from braintorrent.node.lab import address_faults, hints, make_identity
from braintorrent.node.roster import BY_CODE, Member, alike
from braintorrent.node.trusting import trust
from braintorrent.records import Identity, Invite, is_peer_id, short
from braintorrent.storage import StatePaths
from braintorrent.workbench.joining_terms import terms
from braintorrent.workbench.proposing import free_port, write
from braintorrent.workbench.proposing_facts import Progress, facts
from braintorrent.workbench.proposing_joining import check_fit
from braintorrent.workbench.proposing_toml import literal, peer_text

HEAD = "# Agreed by all labs; received and checked by `braintorrent join`.\n"
SENT = "model weights, counts of training cases and steps, seconds, this lab's name and addresses"
KEPT = "every scan, label and file name; the private key"
ROW_CHARS = 2000


@dataclass(frozen=True)
class Offer:
    """What a lab is invited to, checked. table: federation.toml; where: what to call it in errors."""

    invite: Invite
    welcome: Welcome
    table: dict[str, Any]
    where: str

    @property
    def federation(self) -> Federation:
        """The table as the rest of the program has it."""
        return validate(Federation, self.table, self.where)

    @property
    def others(self) -> Sequence[tuple[str, str, tuple[str, ...]]]:
        """(peer id, name, addresses) of those that the inviter vouches for."""
        return [m for m in self.welcome.members if is_peer_id(m[0]) and m[0] != self.invite.peer]

    @property
    def is_of_images(self) -> bool:
        """Whether it can be seen from a lab's data that it fits."""
        return self.federation.kind in ("segmentation", "classification")

    @property
    def start_file(self) -> str:
        """What to copy into the folder before it can run, "" if nothing."""
        name = self.federation.start.weights
        return f"{name} (BLAKE3 {self.welcome.start}), from {self.welcome.name}" if name else ""

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) for people, safe to print."""
        agreed, welcome = self.federation, self.welcome
        task = {key: value for key, value in agreed.task.items() if key != "kind"}
        start = f"the file {agreed.start.weights}" if agreed.start.weights else f"seed {agreed.start.seed}"
        found = [
            ("federation", agreed.id),
            ("invited by", f"{welcome.name}  {self.invite.peer}"),
            ("also in it", ", ".join(f"{name} {short(peer)}" for peer, name, _ in self.others) or "nobody yet"),
            ("task", agreed.kind),
            *((f"  {key}", literal(value)) for key, value in task.items()),
            ("method", agreed.method.name),
            *((f"  {key}", literal(value)) for key, value in agreed.method.options.items()),
            ("start", f"{start}, weights {welcome.start[:12]}"),
            ("will be sent", SENT),
            ("stays here", KEPT),
        ]
        return [(clean(what, 64), clean(value, ROW_CHARS)) for what, value in found]


@dataclass(frozen=True)
class Joined:
    """A peer folder that is in. trusted: names of the labs on its roster."""

    folder: Path
    name: str
    peer: str
    listen: str
    trusted: tuple[str, ...]
    offer: Offer

    @property
    def next_steps(self) -> list[str]:
        """What to do now, as lines for a terminal."""
        copy = [f"copy {self.offer.start_file}, into {self.folder}"] if self.offer.start_file else []
        return [*copy, f"braintorrent check {self.folder}", f"braintorrent run {self.folder}"]

    def plain(self) -> dict[str, Any]:
        """One JSON-able object."""
        return {
            "folder": str(self.folder), "name": self.name, "id": self.peer, "listen": self.listen,
            "federation": self.offer.federation.id, "invited_by": self.offer.welcome.name,
            "trusts": list(self.trusted), "next": self.next_steps,
        }  # fmt: skip


def look(invite: Invite, folder: Path) -> Offer:
    """What `invite` is to, checked against what is installed here; nothing is written, and the code stays good.

    ConfigError where it cannot be joined, RemoteError where the inviter cannot be asked or declines.
    """
    _check_free(folder)
    key = StatePaths(folder).key  # of an attempt that broke off: the code may be bound to it
    identity = Identity.load(key) if key.exists() else Identity.create()
    welcome = asyncio.run(knock(identity, invite, "look", invite.name, ()))
    where = f"the federation.toml of {welcome.name}"
    apart = welcome.clock_ms / 1000 - time.time()
    if abs(apart) > MAX_CLOCK_SKEW:
        raise ConfigError(
            f"the clock of {welcome.name} and this machine's are {abs(apart) / 3600:.1f} hours apart; correct one first"
        )
    return Offer(invite, welcome, terms(welcome.federation, invite.federation, welcome.start, where), where)


def fit(offer: Offer, data: Path, progress: Progress = lambda *_: None) -> None:
    """DataError unless `data` is of the kind that the federation trains on; its headers and a few masks are read."""
    if offer.is_of_images:
        from braintorrent.tasks.layouts import open_dataset

        check_fit(offer.federation, Path(offer.where), facts(open_dataset(data), progress))


def settle(offer: Offer, folder: Path, data: Path, name: str = "", listen: str = "", *, others: bool = True) -> Joined:
    """Make the folder and join. others: also trust those that the inviter vouches for.

    May be repeated after a failure or a kill. RemoteError if the inviter declines or cannot be reached.
    """
    _check_free(folder)
    name, listen = name or offer.invite.name, listen or f"0.0.0.0:{free_port(folder)}"
    text = peer_text(name, data.resolve(), listen)
    peer = validate(Peer, tomllib.loads(text), str(folder / "peer.toml"))
    for fault in address_faults(peer, folder / "peer.toml"):
        raise ConfigError(fault)
    paths = StatePaths(folder)
    identity = make_identity(paths)
    addresses = tuple(hints(peer, folder / "peer.toml"))
    answer = asyncio.run(knock(identity, offer.invite, "join", name, addresses))
    if (answer.federation, answer.start) != (offer.welcome.federation, offer.welcome.start):
        raise ConfigError(f"{offer.welcome.name} changed its federation meanwhile; join again to see to what")
    trusted = _trust(paths, identity, offer, name, others=others)
    write(folder, {"federation.toml": HEAD + tomli_w.dumps(offer.table)})
    write(folder, {"peer.toml": text})
    return Joined(folder, name, identity.id, listen, trusted, offer)


def _trust(paths: StatePaths, identity: Identity, offer: Offer, name: str, *, others: bool) -> tuple[str, ...]:
    """The names of all that are trusted now; one that is taken gets a part of its peer id."""
    inviter, taken = offer.invite.peer, {name}
    rows = [(inviter, offer.welcome.name, offer.invite.addresses, BY_CODE)]
    if others:
        rows += [(*row, inviter) for row in offer.others if row[0] != identity.id]
    for peer, called, addresses, vouched in rows:
        called = f"{called[:55]}-{short(peer)}" if any(alike(called, other) for other in taken) else called
        trust(paths, identity, peer, Member(name=called, addresses=addresses, vouched=vouched))
        taken.add(called)
    return tuple(sorted(taken - {name}))


def _check_free(folder: Path) -> None:
    """ConfigError unless `folder` is new, empty, or what an attempt to join left."""
    if (folder / "peer.toml").exists():
        raise ConfigError(
            f"{folder}: is {load_peer(folder).name}'s peer folder, and nothing is overwritten; give another"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; give a folder that does not exist yet")
    left = {"state", "federation.toml"} if (folder / "state").is_dir() else set()
    if folder.exists() and any(p.name not in left and not p.name.endswith(".tmp") for p in folder.iterdir()):
        raise ConfigError(f"{folder}: has files in it; give a folder that does not exist yet")
