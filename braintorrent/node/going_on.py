"""Going on: which own version the next run trains from. The newest, unless a person went back (reverting.py)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from braintorrent.errors import BadMessage
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.storage import Ledger


@dataclass(frozen=True)
class GoneBack:
    """A person went back from the newest version, and nothing was published since."""

    newest: Version
    to: Version  # NOTHING: the shared start

    def __str__(self) -> str:
        return f"{words(self.to)} (rolled back from {self.newest.counter})"


def words(version: Version) -> str:
    """A version of this lab for people."""
    return f"version {version.counter}" if version != NOTHING else "the shared start"


def gone_back(ledger: Ledger) -> GoneBack | None:
    """Where to, as the ledger says; None where the newest version is what the lab has."""
    newest, found = ledger.newest(), None
    if newest is None:
        return None
    with contextlib.suppress(BadMessage, KeyError, ValueError):  # damaged on this disk: `audit` says so
        for entry in ledger.chain("rollback"):
            back = entry.body["from"] == str(newest.version)
            found = GoneBack(newest.version, Version.parse(entry.body["to"])) if back else None
    return found


def current(ledger: Ledger) -> Announcement | None:
    """The own version that the lab has: the newest, or the one gone back to; None: the shared start."""
    newest, gone = ledger.newest(), gone_back(ledger)
    if newest is None or gone is None:
        return newest
    return ledger.announced(newest.author, gone.to) if gone.to != NOTHING else None
