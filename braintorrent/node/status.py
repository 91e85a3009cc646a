"""What `braintorrent status` shows: one JSON-able picture of a running node."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from braintorrent.node.asking import declined
from braintorrent.node.context import Context
from braintorrent.protocol.contacts import NEVER, Contact
from braintorrent.protocol.entry import Entry

if TYPE_CHECKING:
    from braintorrent.node.node import Node

STARTED = time.time()


def status(node: Node) -> dict[str, Any]:
    """Everything a person or script may want to know. Names no patient and no file of the data folder."""
    context, machine = node.context, node.context.machine
    activity = context.activity
    received, sent = node.traffic.total()
    revoked = contains_revoked(context)
    return {
        "name": node.lab.peer.name,
        "id": machine.me,
        "pid": os.getpid(),
        "federation": node.lab.federation.id,
        "protocols": list(node.lab.peer.protocols),
        "listen": node.listening,
        "addresses": list(node.serving.addresses),
        "uptime_seconds": round(time.time() - STARTED, 1),
        "step": str(machine.step),
        "phase": machine.phase,
        "activity": {
            "verb": _verb(node),
            "done": activity.done,
            "total": activity.total,
            "seconds": round(time.monotonic() - activity.began, 1),
        },
        "spent_seconds": {verb: round(seconds, 3) for verb, seconds in list(activity.spent.items())},
        "idle_share": activity.idle_share,
        "version": str(machine.newest.version) if machine.newest else None,
        "versions": machine.counter,
        "final": bool(machine.newest and machine.newest.final),
        "merges": context.merges,
        "last_merge": context.last_merge,
        "score": node.lab.learner.score,
        "metrics": {stage: dict(values) for stage, values in context.metrics.items()},
        "bytes_in": received,
        "bytes_out": sent,
        "disk_bytes": context.blobs.size(),
        "contains_revoked": revoked,
        "advice": list(context.advice),
        "notes": {**context.notes, **_about_revoked(context, revoked)},
        "peers": [_peer(node, peer) for peer in sorted(node.lab.roster.ids - {machine.me}, key=node.lab.roster.name)],
    }


def contains_revoked(context: Context) -> list[str]:
    """Names of the labs revoked here whose training is in the newest version, or in what is being trained."""
    merged, roster = context.pending.merge, context.lab.roster
    inside = context.contained | (merged.included.keys() if merged else frozenset())
    return sorted({roster.name(peer) for peer in inside & roster.revoked.keys()})


def _about_revoked(context: Context, inside: list[str]) -> dict[str, str]:
    """Who revoked this lab; and what a person may do about labs revoked here that are inside its model."""
    name, at = context.lab.roster.name, f"-C {context.lab.folder.resolve()}"
    notes = {f"revoked by {name(peer)}": why for peer, why in context.revokers.items()}
    if inside:
        notes["lineage"] = (
            f"this lab's model contains {', '.join(inside)}, revoked here; see: braintorrent lineage {at}; "
            f"to go back: stop, then braintorrent rollback --before {inside[0]} {at}"
        )
    return notes


def _verb(node: Node) -> str:
    """The machine's step, or what a step in progress is busy with."""
    step = str(node.context.machine.step)
    if step in ("training", "merging", "publishing", "closing"):
        return node.context.activity.verb
    return "waiting for the others" if step == "lingering" else step


def _peer(node: Node, peer: str) -> dict[str, Any]:
    machine, context = node.context.machine, node.context
    contact = machine.contacts.of.get(peer, Contact())
    entry = machine.table.entries.get(peer, Entry())
    known, met = entry.known, context.greeted.get(peer)
    received, sent = node.traffic.of(peer)
    now = context.now
    return {
        "id": peer,
        "name": node.lab.roster.name(peer),
        "calls_itself": met.name if met else "",
        "protocol": met.protocol if met else None,
        "addresses": list(contact.addresses),
        "present": machine.contacts.is_present(contact, now),
        "phase": contact.phase,
        "declined": declined(context, peer),
        "heard_seconds_ago": None if contact.heard == -NEVER else round(now - contact.heard, 1),
        "known": str(known.version) if known else None,
        "held": str(entry.held.version) if entry.held else None,
        "merged": str(entry.merged) if entry.merged.counter else None,
        "refused": {str(version): reason for version, reason in entry.refused.items()},
        "quarantined": sorted(entry.quarantined),
        "banned": context.conduct.banned(peer),
        "faults": context.conduct.faults(peer),
        "problem": context.problems.get(peer) or contact.problem,
        "bytes_in": received,
        "bytes_out": sent,
    }
