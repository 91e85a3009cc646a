"""Lineage for people and scripts: which model is meant, and what is in it as a tree, as JSON, as a graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from braintorrent.errors import ConfigError
from braintorrent.network.limits import NAME_CHARS
from braintorrent.network.wire import clean
from braintorrent.node.keeping import told as told_of
from braintorrent.node.lineage import Ancestor, Lineage, Mention, Told
from braintorrent.node.roster import Roster
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import short
from braintorrent.storage import Ledger

KEPT = ("latest", "best", "own", "merged")  # models of state/models
DEPTH = 6  # merges that the tree goes back, unless told otherwise
WIDTH = 12  # branches of one version
LINES = 200  # versions in a tree
MENTIONED = 6  # parents on the line of those that have their branch elsewhere
MEANS = (
    "influence: a lab's part of all training known to be in the model, by the weights of the merges; it counts "
    "versions, not cases, and does not say how good it is or what can be read out of it"
)

Namer = Callable[[str], str]


def chosen(ledger: Ledger, models: Path, me: str, text: str | None) -> tuple[Ancestor, Told | None]:
    """The model that a person means: an own version, by counter or in full, a kept model's name, or the newest.

    With what is known of it where it is a merge that was never announced. ConfigError if there is none such.
    """
    if text in KEPT:
        return kept(ledger, models, me, text)
    own = [version for version, _ in ledger.published()]
    if not own:
        raise ConfigError(f"{models.parent}: no version was published here yet, so no model has a lineage")
    meant = [version for version in own if text in (None, str(version), str(version.counter))]
    if not meant:
        raise ConfigError(
            f"{text!r} is no version of this lab (it has {own[0].counter} to {own[-1].counter}) and none of "
            f"{', '.join(KEPT)}; a peer folder goes behind -C"
        )
    return announced(ledger, me, meant[-1]), None


def kept(ledger: Ledger, models: Path, me: str, name: str) -> tuple[Ancestor, Told | None]:
    """A model of state/models. ConfigError if there is none of that name."""
    found = told_of(models, name)
    try:
        root = Ancestor(me, Version.parse(found["version"]), found["content"])
        if found["stage"] != "merged":
            return root, None
        parents = [(announced(ledger, p["id"], Version.parse(p["version"])), p["weight"]) for p in found["parents"]]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{models / name}.json: there is no such model (yet), or it does not say what made it"
        ) from None
    return root, Told(tuple(parents))


def announced(ledger: Ledger, author: str, version: Version) -> Ancestor:
    """A version by the bytes it was announced with; without any if it never was here."""
    found = ledger.announced(author, version) if version != NOTHING else None
    return Ancestor(author, version, found.content if found else "")


def namer(me: str, name: str, roster: Roster) -> Namer:
    """Peer id -> what people here call it, safe for a terminal."""
    return lambda peer: clean(name if peer == me else roster.name(peer), NAME_CHARS)


# ------------------------------------------------------------- for people


def picture(lineage: Lineage, name: Namer, revoked: Collection[str], depth: int = DEPTH) -> Group:
    """The tree, at most `depth` merges deep; then each lab's part in the model; then what is not known."""
    tree, shown = _tree(lineage, name, revoked, depth)
    parts: list[Any] = [tree, Text(), _labs(lineage, name, revoked), Text(MEANS, "dim")]
    behind = len(lineage.told) - shown
    if any(len(told.parents) > 1 for told in lineage.told.values()):
        parts.append(Text("each version stands once, where it is nearest to the model", "dim"))
    if behind:
        more = f"{behind} more versions are not shown (--depth {max(lineage.distance.values())}, --json, --dot)"
        parts.append(Text(more, "dim"))
    if lineage.unread:
        parts.append(Text(f"{lineage.unread} more parents were not looked up: this lineage is too long", "yellow"))
    if holes := lineage.holes:
        which = ", ".join(f"{_called(a, name)} ({lineage.told[a].hole})" for a in holes[:MENTIONED])
        more = f", and {len(holes) - MENTIONED} more" if len(holes) > MENTIONED else ""
        parts.append(Text(f"unknown beyond: {which}{more}", "yellow"))
    return Group(*parts)


def _tree(lineage: Lineage, name: Namer, revoked: Collection[str], depth: int) -> tuple[Tree, int]:
    """Each version once, below the nearest that it went into; and how many versions that are."""
    weights = {(child, parent): w for child, told in lineage.told.items() for parent, w in told.parents}
    tree = Tree(_line(lineage, lineage.root, None, name, revoked))
    branches = {lineage.root: tree}
    for ancestor in lineage.told:
        child = lineage.via[ancestor]
        branch = branches.get(child)
        if branch is None or ancestor == lineage.root or lineage.distance[ancestor] > depth:
            continue
        if len(branch.children) >= WIDTH or len(branches) >= LINES:
            continue
        weight = weights.get((child, ancestor))
        branches[ancestor] = branch.add(_line(lineage, ancestor, weight, name, revoked))
    below = {(lineage.via[ancestor], ancestor) for ancestor in branches}
    for ancestor, branch in branches.items():
        others = [(p, w) for p, w in lineage.told[ancestor].parents if (ancestor, p) not in below]
        _rest(branch, lineage, ancestor, others, name)
    return tree, len(branches)


def _line(lineage: Lineage, ancestor: Ancestor, weight: float | None, name: Namer, revoked: Collection[str]) -> Text:
    told = lineage.told[ancestor]
    merge = lineage.merge and ancestor == lineage.root
    title = (
        f"{name(ancestor.author)}, merged after version {ancestor.version.counter}"
        if merge
        else _called(ancestor, name)
    )
    line = Text(title, "bold")
    if ancestor.author in revoked:
        line.append(" REVOKED", "bold red")
    facts = [] if weight is None else [f"weight {weight:.2f}", f"share {lineage.share[ancestor]:.3f}"]
    if told.samples:
        facts.append(f"{told.samples} samples")
    return line.append(f"  {' · '.join(facts)}", "not bold dim") if facts else line


def _rest(branch: Tree, lineage: Lineage, ancestor: Ancestor, others: list[Mention], name: Namer) -> None:
    """What stands below a version beside its branches: where knowledge ends, and the other parents."""
    told = lineage.told[ancestor]
    if told.hole:
        branch.add(Text(f"unknown beyond here: {told.hole}", "yellow"))
    elif not told.parents and ancestor.version != NOTHING:
        branch.add(Text("local training from the shared start", "green"))
    if others:
        which = ", ".join(f"{_called(p, name)} (weight {w:.2f})" for p, w in others[:MENTIONED])
        more = f", and {len(others) - MENTIONED} more" if len(others) > MENTIONED else ""
        branch.add(Text(f"and {which}{more}", "dim"))


def _called(ancestor: Ancestor, name: Namer) -> str:
    if ancestor.version == NOTHING:
        return f"the shared start (as {name(ancestor.author)} had it)"
    return f"{name(ancestor.author)} {ancestor.version.counter}"


def _labs(lineage: Lineage, name: Namer, revoked: Collection[str]) -> Table:
    direct = {parent.author: weight for parent, weight in lineage.told[lineage.root].parents}
    table = Table("lab", "id", "versions", "influence", "how it came in", "", box=None, header_style="bold")
    counts = _counts(lineage)
    for author, influence in lineage.influence.items():
        how = f"directly, weight {direct[author]:.2f}" if author in direct else "through others"
        if author == lineage.root.author and author not in direct:
            how = "its own"
        mark = Text("REVOKED", "bold red") if author in revoked else Text()
        table.add_row(Text(name(author)), short(author), str(counts[author]), f"{influence:.1%}", how, mark)
    return table


def _counts(lineage: Lineage) -> dict[str, int]:
    counts: dict[str, int] = {}
    for ancestor in lineage.trained:
        counts[ancestor.author] = counts.get(ancestor.author, 0) + 1
    return counts


# ------------------------------------------------------------- for scripts


def plain(lineage: Lineage, name: Namer, revoked: Collection[str], depth: int | None = None) -> dict[str, Any]:
    """The whole of it, or `depth` merges, for JSON. Parents are places in `versions`, which has the nearest first."""
    shown, counts, root = _within(lineage, depth), _counts(lineage), lineage.root
    return {
        "root": {"lab": name(root.author), "version": str(root.version), "content": root.content},
        "labs": [
            {"lab": name(a), "id": a, "versions": counts[a], "influence": round(i, 6), "revoked": a in revoked}
            for a, i in lineage.influence.items()
        ],
        "versions": [_plain(lineage, ancestor, name, revoked, shown) for ancestor in shown],
        "left_out": len(lineage.told) - len(shown) + lineage.unread,
    }  # fmt: skip


def _plain(
    lineage: Lineage, ancestor: Ancestor, name: Namer, revoked: Collection[str], shown: dict[Ancestor, int]
) -> dict[str, Any]:
    told = lineage.told[ancestor]
    return {
        "lab": name(ancestor.author), "id": ancestor.author, "version": str(ancestor.version),
        "content": ancestor.content, "share": round(lineage.share[ancestor], 9),
        "distance": lineage.distance[ancestor], "samples": told.samples or None, "steps": told.steps or None,
        "unknown_beyond": told.hole or None, "revoked": ancestor.author in revoked,
        "start": ancestor.version == NOTHING,
        "parents": [{"version": shown[p], "weight": w} for p, w in told.parents if p in shown],
    }  # fmt: skip


def dot(lineage: Lineage, name: Namer, revoked: Collection[str], depth: int | None = None) -> str:
    """The same as a graph for graphviz; arrows lead from parents to what they went into."""
    shown = _within(lineage, depth)
    lines = ["digraph lineage {", "  rankdir=BT; node [shape=box, fontname=sans-serif];"]
    for ancestor, number in shown.items():
        told = lineage.told[ancestor]
        label = f"{_called(ancestor, name)}\nshare {lineage.share[ancestor]:.3f}"
        label += "\nREVOKED" if ancestor.author in revoked else ""
        label += f"\nunknown beyond here: {told.hole}" if told.hole else ""
        style = ", color=red" if ancestor.author in revoked else ", style=dashed" if told.hole else ""
        lines.append(f"  v{number} [label={json.dumps(label)}{style}];")
        lines += [f'  v{shown[p]} -> v{number} [label="{w:.2f}"];' for p, w in told.parents if p in shown]
    return "\n".join([*lines, "}"])


def _within(lineage: Lineage, depth: int | None) -> dict[Ancestor, int]:
    return {a: number for number, a in enumerate(lineage.told) if depth is None or lineage.distance[a] <= depth}
