"""Whom a lab trusts, and whom no more: one picture for people and scripts, beside a running node or without one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from braintorrent.errors import ConfigError
from braintorrent.node.advice import advice, called, said, waiting
from braintorrent.node.control import last_status, read_status
from braintorrent.node.kept import read_notices
from braintorrent.node.roster import BY_CODE, Roster
from braintorrent.protocol.notices import Introduction, Revocation, Rotation
from braintorrent.records import Identity, short
from braintorrent.storage import Ledger, StatePaths


def members(folder: Path) -> dict[str, Any]:
    """members, revoked, waiting: lists of what `braintorrent roster --json` shows. Times are Unix seconds, or None."""
    paths = StatePaths(folder)
    roster, seen = Roster(paths.roster), _last_seen(folder)
    trusted = [
        {
            "name": m.name, "id": peer, "addresses": list(m.addresses), "since": m.since or None,
            "by_code": m.vouched == BY_CODE,
            "vouched": roster.name(m.vouched) if m.vouched not in ("", BY_CODE) else None, "seen": seen.get(peer),
        }
        for peer, m in roster.members.items()
    ]  # fmt: skip
    revoked = [
        {"name": r.name, "id": peer, "why": r.why, "since": r.unix, "by": roster.name(r.by) if r.by else "this lab"}
        for peer, r in roster.revoked.items()
        if roster.heir(peer) == peer  # not once more for each key that it had before
    ]
    return {
        "members": sorted(trusted, key=lambda m: str(m["name"])),
        "revoked": sorted(revoked, key=lambda r: str(r["name"])),
        "waiting": [advice(notice, roster, folder) for notice in asked(folder)],
    }


def asked(folder: Path) -> list[Introduction | Revocation | Rotation]:
    """The notices that wait for a person, of a folder whose node may run."""
    paths = StatePaths(folder)
    if not paths.ledger.exists():
        return []
    with Ledger(paths.ledger, read_only=True) as ledger:
        kept = read_notices(ledger)
    return waiting(kept, Roster(paths.roster), Identity.load(paths.key).id)


def pick(folder: Path, name: str) -> list[Introduction | Revocation | Rotation]:
    """What waits about the lab of that name or peer id, the newest first; ConfigError without, or of several."""
    roster, found = Roster(StatePaths(folder).roster), asked(folder)
    about = [notice for notice in found if name in (called(notice, roster), notice.peer, roster.name(notice.peer))]
    if not about:
        names = sorted({called(notice, roster) for notice in found})
        others = ", ".join(names) or "nobody"
        raise ConfigError(f"{folder}: nothing waits for a decision about {name}; there is advice about {others}")
    if len(ids := {roster.heir(notice.peer) for notice in about}) > 1:
        those = ", ".join(sorted(ids))
        raise ConfigError(f"{folder}: {name} is what others call several labs; give the peer id instead: {those}")
    return sorted(about, key=lambda notice: (not isinstance(notice, Rotation), -notice.unix_ms))


def shown(found: dict[str, Any]) -> Group:
    """The picture as tables."""
    table = Table("lab", "id", "since", "came", "last seen", "addresses", box=None, header_style="bold")
    for m in found["members"]:
        addresses = Text(", ".join(m["addresses"]))
        came = "by code" if m["by_code"] else f"introduced by {m['vouched']}" if m["vouched"] else "by hand"
        table.add_row(m["name"], short(m["id"]), _when(m["since"]), came, _ago(m["seen"]), addresses)
    parts: list[Any] = [table if found["members"] else Text("nobody is trusted yet")]
    if found["revoked"]:
        gone = Table("revoked", "id", "since", "by", "why", box=None, header_style="bold")
        for r in found["revoked"]:
            gone.add_row(r["name"], short(r["id"]), _when(r["since"]), r["by"], Text(r["why"]))
        parts += [Text(), gone]
    if found["waiting"]:
        parts += [Text(), *(Text(said(each), "yellow") for each in found["waiting"])]
    return Group(*parts)


def _last_seen(folder: Path) -> dict[str, float]:
    """Peer -> Unix time it was last heard, as the running node says, or the last one as it ended."""
    status, now = read_status(folder), time.time()
    if status is None and (status := last_status(folder)) is not None:
        now = StatePaths(folder).last_status.stat().st_mtime
    peers = status["peers"] if status else []
    return {p["id"]: now - p["heard_seconds_ago"] for p in peers if p["heard_seconds_ago"] is not None}


def _when(unix: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix)) if unix else ""


def _ago(unix: float | None) -> str:
    if unix is None:
        return ""
    seconds = time.time() - unix
    return f"{seconds:.0f} s ago" if seconds < 120 else _when(unix)
