"""What the ledger keeps of labs' word on labs: notices and their states, and who was taken off the roster."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass

from braintorrent.errors import BadMessage
from braintorrent.node.roster import Roster
from braintorrent.protocol.notices import MAX_ROTATIONS, Notice, Notices, Rotation
from braintorrent.records.notice import open_notice
from braintorrent.storage import Ledger


@dataclass(frozen=True)
class Kept:
    """A notice of the ledger, and its state."""

    notice: Notice
    state: str


def read_notices(ledger: Ledger, known: dict[bytes, Notice] | None = None) -> list[Kept]:
    """What the ledger keeps. known: those opened before; a signature takes a while to verify."""
    known, kept = {} if known is None else known, []
    for raw, state in ledger.notices():
        with contextlib.suppress(BadMessage):  # damaged on this disk: `audit` says so
            notice = known.get(raw) or open_notice(raw)
            known[raw] = notice
            kept.append(Kept(notice, state))
    return kept


def own_rotations(ledger: Ledger, me: str) -> list[Rotation]:
    """How this lab came to its key, at most MAX_ROTATIONS in order; empty if it always had this one."""
    led = {n.peer: n for each in read_notices(ledger) if isinstance(n := each.notice, Rotation)}
    chain: list[Rotation] = []
    while me in led and len(chain) < MAX_ROTATIONS:
        chain.insert(0, led.pop(me))
        me = chain[0].author
    return chain


def newest(kept: Collection[Kept], roster: Roster, me: str) -> list[Kept]:
    """Those that count: of whom the roster trusts, and not outdated by the same author."""
    counts = Notices()
    for each in kept:
        counts.add(each.notice)
    counts.keep_of(roster.ids | {me})
    digests = {notice.digest for notice in counts}
    return [each for each in kept if each.notice.digest in digests]


def taken_off(ledger: Ledger) -> dict[str, float]:
    """Whom people took off the roster, by every id it had, and did not put on again -> Unix seconds when."""
    found: dict[str, float] = {}
    for entry in ledger.chain("roster"):
        for peer in (str(entry.body.get("peer")), *entry.body.get("former", ())):
            if entry.body.get("action") in ("untrusted", "revoked"):
                found[peer] = entry.unix_ms / 1000
            else:
                found.pop(peer, None)
    return found
