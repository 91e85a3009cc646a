"""Rich tables: the status of one peer, of several side by side, and what a peer missed of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from braintorrent.node.advice import said
from braintorrent.protocol.policy import Policy
from braintorrent.storage import Taken

ADVICE_SHOWN = 8
HAND_OVER = Policy().hand_over  # seconds, after which who was leaving is gone, though nobody tried it
FILE_WIDTH = 120  # columns of what goes into a file, where nobody can widen a window


def console(*, stderr: bool = False) -> Console:
    """A terminal, or a file wide enough for the tables."""
    made = Console(stderr=stderr)
    if not made.is_terminal:
        made.width = max(made.width, FILE_WIDTH)
    return made


def one_peer(status: dict[str, Any]) -> Group:
    """What `braintorrent status` prints."""
    activity = status["activity"]
    head = Table.grid(padding=(0, 2))
    head.add_row("peer", f"{status['name']}  {status['id']}")
    head.add_row("listens", Text(", ".join(status["addresses"])))  # [fd00::7] is no markup
    head.add_row("doing", f"{doing(status)} for {activity['seconds']:.0f} s")
    head.add_row("version", f"{status['versions']}{' (final)' if status['final'] else ''}")
    head.add_row("scores", scores(status) or "none yet")
    head.add_row("merged", merged(status) or "nobody yet")
    head.add_row("traffic", f"{size(status['bytes_in'])} in, {size(status['bytes_out'])} out")
    for what, text in status["notes"].items():
        head.add_row(Text(what, "yellow"), Text(text, "yellow"))
    for advice in status.get("advice", [])[:ADVICE_SHOWN]:  # `roster` shows all of it
        head.add_row(Text("advice", "yellow"), Text(said(advice), "yellow"))
    table = Table("peer", "id", "state", "known", "merged", "in", "out", "trouble", box=None, header_style="bold")
    for peer in status["peers"]:
        refused = "; ".join(f"version {_counter(v)} refused: {reason}" for v, reason in peer["refused"].items())
        table.add_row(
            peer["name"], peer["id"][:7], state(peer), _counter(peer["known"]), _counter(peer["merged"]),
            size(peer["bytes_in"]), size(peer["bytes_out"]), Text(trouble(peer) or refused, "yellow"),
        )  # fmt: skip
    return Group(head, Text(), table)


def many_peers(
    statuses: dict[str, dict[str, Any] | None],
    ended: dict[str, int],
    failures: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """What `launch` and the demo show: one row per peer.

    ended: name -> exit code of those that are done; failures: name -> what those said last that did not end well.
    """
    table = Table("peer", "doing", "version", "merged last", "validation", "in", "out", "trouble", header_style="bold")
    for name, status in statuses.items():
        if status is None:
            what = how_it_ended(ended[name]) if name in ended else "starting"
            table.add_row(name, what, *[""] * 5, Text(failures.get(name, ""), "yellow"))
            continue
        what = how_it_ended(ended[name]) if name in ended else doing(status)
        others = (f"{p['name']}: {trouble(p)}" for p in status["peers"] if trouble(p))
        worst = next(iter(status["notes"].values()), next(others, ""))
        table.add_row(
            name, what, str(status["versions"]), merged(status), scores(status), size(status["bytes_in"]),
            size(status["bytes_out"]), Text(failures.get(name, "") if name in ended else worst, "yellow"),
        )  # fmt: skip
    return table


def what_was_missed(taken: Mapping[str, Taken], name: Callable[[str], str]) -> Table:
    """What `lineage --missed` prints: of each other lab, what no merge here took."""
    columns = ("lab", "merged", "missed", "held", "longest gap", "from", "to", "skipped for")
    table = Table(*columns, box=None, header_style="bold")
    for author, found in sorted(taken.items(), key=lambda item: -item[1].missed):
        longest = max(found.gaps, key=lambda gap: gap.versions, default=None)
        row = ["", "", ""]
        if longest is not None:
            which = f"{longest.first} to {longest.last}" if longest.versions > 1 else str(longest.first)
            row = [f"{longest.versions} ({which})", _clock(longest.since), _clock(longest.until)]
        why = ", ".join(f"{reason} {count}" for reason, count in found.skipped.items())
        held = str(sum(gap.held for gap in found.gaps))
        table.add_row(Text(name(author)), str(found.merged), str(found.missed), held, *row, Text(why))
    return table


def plain_missed(taken: Mapping[str, Taken], name: Callable[[str], str]) -> dict[str, Any]:
    """All of it, for JSON; times are unix seconds."""
    return {"labs": [
        {"lab": name(author), "id": author, "merged": found.merged, "missed": found.missed,
         "skipped": dict(found.skipped), "gaps": [asdict(gap) for gap in found.gaps]}
        for author, found in taken.items()
    ]}  # fmt: skip


def _clock(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))


def doing(status: dict[str, Any]) -> str:
    """The activity in words, with a small bar while it counts."""
    activity = status["activity"]
    if not activity["total"]:
        return str(activity["verb"])
    filled = round(10 * activity["done"] / activity["total"])
    return f"{activity['verb']} {'━' * filled}{'─' * (10 - filled)} {activity['done']}/{activity['total']}"


def merged(status: dict[str, Any]) -> str:
    """Whom this peer merged last; before the first merge since its start, whose versions it holds merged."""
    names = {p["id"]: p["name"] for p in status["peers"]}
    included = status["last_merge"].get("included", {})
    if not included:
        return ", ".join(f"{p['name']} {_counter(p['merged'])}" for p in status["peers"] if p["merged"])
    return ", ".join(sorted(names.get(author, author[:7]) for author in included if author != status["id"]))


def scores(status: dict[str, Any]) -> str:
    """The last validation figures, e.g. "dice .713 (merged .741)"."""
    found = {stage: status["metrics"].get(stage, {}) for stage in ("own", "merged")}
    name = status.get("score")
    if name not in found["own"]:  # of an older release, or not defined on so few cases
        name = next(iter(found["own"]), None)
    text = f"{name} {found['own'][name]:.3f}" if name else ""
    return f"{text} (merged {found['merged'][name]:.3f})" if name in found["merged"] else text


def state(peer: dict[str, Any]) -> str:
    """Where another peer stands, as seen from here."""
    if peer["present"]:
        return str(peer["phase"])
    if peer["phase"] == "leaving":
        gone = peer["problem"] or peer["heard_seconds_ago"] > HAND_OVER
        return "left" if gone else "leaving"
    if peer["declined"]:
        return "refused"
    if peer["heard_seconds_ago"] is not None:
        return f"silent for {peer['heard_seconds_ago']:.0f} s"
    return "away" if peer["known"] or peer["merged"] else "not seen yet"


def trouble(peer: dict[str, Any]) -> str:
    """What is wrong with another peer; having left is not."""
    return "" if state(peer) == "left" and not peer["declined"] else str(peer["problem"])


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _counter(version: str | None) -> str:
    return version.rsplit(".", 1)[1] if version else ""


def how_it_ended(code: int) -> str:
    """What a process was up to that is no more."""
    return "done" if code == 0 else f"failed ({code})"
