"""Influence: through whom a lab goes on being learned from when it is trusted no more, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from braintorrent.config import load_peer
from braintorrent.node.going_on import current
from braintorrent.node.lineage import Ancestry
from braintorrent.node.roster import Roster
from braintorrent.storage import Ledger, StatePaths

REFUSE = '[gates] lineage = "refuse"'


def carriers(ledger: Ledger, ancestry: Ancestry, roster: Roster, me: str, peers: frozenset[str]) -> list[str]:
    """Names of the trusted labs whose newest model held here is known to contain one of `peers`."""
    held = [e.held for author, e in ledger.entries(me).items() if e.held and author in roster.ids - peers]
    return sorted(map(roster.name, ancestry.containing(peers, held)))


def comes_back(folder: Path, ledger: Ledger, me: str, peers: frozenset[str], name: str) -> Iterator[str]:
    """After going back to before `peers`: which merges would bring them in again, a line each."""
    paths = StatePaths(folder)
    roster = Roster(paths.roster)
    revoked = peers <= roster.revoked.keys()
    if revoked and load_peer(folder).gates.lineage == "refuse":
        return
    condition = REFUSE if revoked else f"{name} is revoked here and {REFUSE}"
    for lab in carriers(ledger, Ancestry(ledger, paths.blobs), roster, me, peers):
        yield (
            f"{lab}'s newest model contains {name}: it comes back at the first merge unless {lab} rolls back too, "
            f"or {condition}"
        )


def goes_on(folder: Path, me: str, peers: frozenset[str], name: str) -> Iterator[str]:
    """After `peers` were revoked: whose models they are in, and what can be done about it, a line each."""
    paths = StatePaths(folder)
    with Ledger(paths.ledger, read_only=True) as ledger:
        ancestry = Ancestry(ledger, paths.blobs)
        others = carriers(ledger, ancestry, Roster(paths.roster), me, peers)
        own = ancestry.authors(current(ledger)) & peers
    if own:
        yield (
            f"this lab's model contains {name}: train on, so that its share fades, or stop and go back: "
            f"braintorrent rollback --before {name} -C {folder}"
        )
    strict = load_peer(folder).gates.lineage == "refuse"
    choices = (
        f"{REFUSE} keeps such models out here" if strict else
        f"to keep such models out, {REFUSE} in {folder / 'peer.toml'}, from its next run on"
    )  # fmt: skip
    for lab in others:
        yield (
            f"{lab}'s newest model contains {name}: its influence goes on through {lab}, unless {lab} rolls back "
            f"as well; {choices}"
        )
