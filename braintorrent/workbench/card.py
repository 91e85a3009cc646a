"""A model card: what a kept model is, which labs are in it and at what weight, and how well it did here.

The figures come from the lab's own ledger and from the JSON beside the model. Names of other labs are their own
choice, so they are text and never markup here.
"""

from __future__ import annotations

import re
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from braintorrent.protocol.version import Version
from braintorrent.storage import Ledger, Merged
from braintorrent.workbench.contents import Contents, Names
from braintorrent.workbench.kept import Kept, Opened

Card = dict[str, Any]
SOFTWARE = ("braintorrent", "torch", "monai", "numpy", "nibabel", "safetensors")
USE = (
    "For research on images like those of the labs named here, where a person checks what it says before anybody "
    "relies on it."
)
LIMITS = (
    "It is no medical device, its figures come from one lab's few validation cases, and scanners, protocols and "
    "patients that these labs do not have may give worse results, without a warning."
)


def describe(lab: Opened, kept: Kept, parameters: int, inside: Contents) -> Card:
    """The card as plain values. parameters: of the network; inside: whose training is in the model."""
    merges, samples = _history(lab)
    names = Names(lab)
    said = kept.said
    return {
        "format": 1,
        "model": {
            "name": kept.name, "version": kept.version, "content": kept.content, "stage": said.get("stage", ""),
            "date": _date(said.get("unix", time.time())),
        },
        "federation": lab.federation.id,
        "lab": lab.peer.name,
        "task": {key: value for key, value in lab.federation.task.items() if not key.startswith("network")},
        "network": {
            "class": lab.federation.task.get("network", "UNet"), "parameters": parameters,
            "arguments": lab.federation.task.get("network_args", {}),
        },
        "method": lab.federation.method.model_dump(),
        "parents": _parents(kept, merges, names),
        "labs": list(inside.labs),
        "holes": inside.holes,
        "merges": sum(bool(merged.included) for _, merged in merges),
        "peers": _peers([merged for _, merged in merges], names),
        "training_cases": samples,
        "validation": dict(said.get("score") or {}),
        "software": {package: found for package in SOFTWARE if (found := _version(package))},
        "written": _date(time.time()),
        "intended_use": USE,
        "limits": LIMITS,
    }  # fmt: skip


def _history(lab: Opened) -> tuple[list[tuple[Version | None, Merged]], int]:
    """Merges with the versions they led to, and own training cases."""
    if not lab.state.ledger.exists():
        return [], 0
    with Ledger(lab.state.ledger, read_only=True) as ledger:
        newest = ledger.newest()
        return ledger.merges(), newest.samples if newest else 0


def _parents(kept: Kept, merges: list[tuple[Version | None, Merged]], names: Names) -> list[dict[str, Any]]:
    """Who went directly into this model: as written beside it, or else as the ledger has it."""
    if kept.said.get("parents") is not None:
        return [{**parent, "name": names(parent["id"], parent["name"])} for parent in kept.said["parents"]]
    for led_to, merged in reversed(merges):
        if (merged.last if kept.name == "merged" else str(led_to) == kept.version) and merged.included:
            return [
                {"name": names(author), "id": author, "version": str(part.version), "weight": part.weight}
                for author, part in merged.included.items()
            ]
    return []


def _peers(merges: list[Merged], names: Names) -> list[dict[str, Any]]:
    """Every author over all merges: how often it was in, at what mean weight, how often it was skipped and why."""
    rows: dict[str, dict[str, Any]] = {}
    for merged in merges:
        for author, part in merged.included.items():
            row = rows.setdefault(author, {"times": 0, "total": 0.0, "skipped": {}})
            row["times"] += 1
            row["total"] += part.weight
        for author, part in merged.skipped.items():
            row = rows.setdefault(author, {"times": 0, "total": 0.0, "skipped": {}})
            row["skipped"][part.reason] = row["skipped"].get(part.reason, 0) + 1
    return [
        {
            "name": names(author), "id": author, "times": row["times"],
            "mean_weight": row["total"] / row["times"] if row["times"] else 0.0, "skipped": row["skipped"],
        }
        for author, row in sorted(rows.items(), key=lambda item: (names(item[0]), item[0]))
    ]  # fmt: skip


def markdown(card: Card) -> str:
    """The card for people."""
    model, task, network = card["model"], card["task"], card["network"]
    labels = ", ".join(_plain(f"{value} {label}") for value, label in enumerate(task.get("labels", [])))
    facts = {
        "model": f"{_plain(model['name'])} of {_plain(card['lab'])}, {model['date']}",
        "version": _plain(model["version"]) or "unknown", "content (BLAKE3)": model["content"],
        "federation": _plain(card["federation"]), "task": _plain(task["kind"]),
        "network": f"{_plain(network['class'])}, {network['parameters']:,} parameters",
        "method": _plain(card["method"]["name"]), "training cases of this lab": str(card["training_cases"]),
    }  # fmt: skip
    lines = [f"# {_plain(task['kind'])} model of federation {_plain(card['federation'])}", ""]
    lines += _table(("", ""), list(facts.items()))
    if labels:
        lines += ["", f"Labels: {labels}."]
    lines += ["", "## Intended use and limits", "", card["intended_use"], "", card["limits"], ""]
    lines += ["## Who is in it", "", *_labs(card), *_lineage(card)]
    lines += ["", "## Validation", "", *_validation(card)]
    lines += [
        "",
        "## Made with",
        "",
        ", ".join(f"{name} {found}" for name, found in card["software"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _labs(card: Card) -> list[str]:
    if not card["labs"]:
        return []
    rows = [
        (_plain(lab["name"]), _plain(lab["id"][:7]), str(lab["versions"]), f"{lab['influence']:.1%}",
         "REVOKED" if lab["revoked"] else "")
        for lab in card["labs"]
    ]  # fmt: skip
    holes = f"; the lineage is unknown beyond {card['holes']} of its versions" if card["holes"] else ""
    title = f"All labs whose training is known to be in it, with their share of it{holes}:"
    return [title, "", *_table(("lab", "id", "versions", "share", ""), rows), ""]


def _lineage(card: Card) -> list[str]:
    if not card["parents"]:
        return ["It was trained from the start that all labs share; no other model went into it, as far as is known."]
    rows = [
        (_plain(p["name"]), _plain(p["id"][:7]), _plain(p["version"]), f"{p['weight']:.3f}") for p in card["parents"]
    ]
    lines = ["Models that went directly into it:", "", *_table(("lab", "id", "version", "weight"), rows)]
    peers = []
    for p in card["peers"]:
        skipped = ", ".join(f"{count} {reason}" for reason, count in p["skipped"].items())
        mean = f"{p['mean_weight']:.3f}" if p["times"] else ""
        peers.append((_plain(p["name"]), _plain(p["id"][:7]), str(p["times"]), mean, _plain(skipped)))
    title = f"Over all {card['merges']} merges of {_plain(card['lab'])}:"
    return [*lines, "", title, "", *_table(("lab", "id", "merged", "mean weight", "skipped, and why"), peers)]


def _validation(card: Card) -> list[str]:
    if not card["validation"]:
        return ["Nobody measured this model on validation cases."]
    rows = [(_plain(name), f"{value:.4f}") for name, value in card["validation"].items()]
    return [f"On the validation cases of {_plain(card['lab'])}:", "", *_table(("metric", "value"), rows)]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _plain(text: Any) -> str:
    """Text as itself in markdown and HTML: no link, no emphasis, no tag, no new cell or line."""
    return re.sub(r"([\\`*_{}\[\]#|<>~&@:])", r"\\\1", " ".join(str(text).split()))


def _date(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
