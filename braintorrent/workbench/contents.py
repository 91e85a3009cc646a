"""Which labs are in a model, as far as this lab knows, and which of them are revoked here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from braintorrent.errors import BadMessage, ConfigError
from braintorrent.node.keeping import told
from braintorrent.node.lineage import Ancestor, Ancestry, Lineage
from braintorrent.node.pedigree import KEPT, kept
from braintorrent.node.roster import Roster
from braintorrent.records import Identity
from braintorrent.storage import Ledger
from braintorrent.workbench.kept import Kept, Opened


class Names:
    """What people in this lab call a peer, or called it while they trusted it."""

    def __init__(self, lab: Opened) -> None:
        self._roster = Roster(lab.state.roster)
        self._own = {Identity.load(lab.state.key).id: lab.peer.name} if lab.state.key.exists() else {}
        self._former = dict(_former(lab))

    def __call__(self, peer: str, otherwise: str = "") -> str:
        if peer in self._own:
            return self._own[peer]
        known = peer in self._roster.ids or peer in self._roster.revoked
        return self._roster.name(peer) if known else otherwise or self._former.get(peer, peer[:7])


@dataclass(frozen=True)
class Contents:
    """labs: {"name", "id", "versions", "influence", "revoked"}, the largest first; holes: where knowledge ends."""

    labs: tuple[dict[str, Any], ...] = ()
    holes: int = 0

    @property
    def revoked(self) -> list[str]:
        """Names of the labs in it that are revoked here."""
        return sorted(lab["name"] for lab in self.labs if lab["revoked"])


def contents(lab: Opened, model: Kept) -> Contents:
    """What is known to be in a model, by its bytes; nothing where this lab never made such a model."""
    lineage = _lineage(lab, model.content or str(model.said.get("content", "")))
    if lineage is None:
        return Contents()
    names, revoked = Names(lab), Roster(lab.state.roster).revoked
    versions = [ancestor.author for ancestor in lineage.trained]
    labs = [
        {"name": names(a), "id": a, "versions": versions.count(a), "influence": round(i, 6), "revoked": a in revoked}
        for a, i in lineage.influence.items()
    ]
    return Contents(tuple(labs), len(lineage.holes))


def warning(lab: Opened, model: Kept, revoked: list[str]) -> str:
    """One line on a model that contains labs revoked here."""
    where = f" {model.name}" if model.name in KEPT else ""
    return f"{model.name} contains {', '.join(revoked)}, revoked here (braintorrent lineage{where} -C {lab.folder})"


def _lineage(lab: Opened, content: str) -> Lineage | None:
    if not (content and lab.state.ledger.exists() and lab.state.key.exists()):
        return None
    me = Identity.load(lab.state.key).id
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        ancestry = Ancestry(ledger, lab.state.blobs)
        for a in ledger.own():
            if a.content == content:
                return ancestry.trace(Ancestor(me, a.version, content))
        for name in KEPT:
            if told(lab.state.models, name).get("content") == content:
                with contextlib.suppress(ConfigError):  # it does not say what made it
                    return ancestry.trace(*kept(ledger, lab.state.models, me, name))
    return None


def _former(lab: Opened) -> list[tuple[str, str]]:
    """(peer, name) of everyone who ever was on the roster, the last name last."""
    if not lab.state.ledger.exists():
        return []
    with Ledger(lab.state.ledger, read_only=True) as ledger, contextlib.suppress(BadMessage, KeyError):
        return [(entry.body["peer"], entry.body["name"]) for entry in ledger.chain("roster")]
    return []
