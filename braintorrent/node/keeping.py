"""Keep: the models a lab goes on to use, in `state/models/`, each with the lineage that made it beside it.

latest  the newest published version
best    the version with the best score on own validation cases so far
own     at the end of a run, after the last local steps: fits this lab
merged  at the end of a run, after the last merge: fits all; the own model where that merge was undone

NAME.json holds model (the name), version (the own version that was newest then), content (the digest of
NAME.safetensors: a crash between the two files leaves another), score (metrics on own validation cases), stage
("own" after local steps, "merged" after a merge), unix, and parents (name, id, version, weight): who went in directly.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from braintorrent.contracts import MergeOutcome
from braintorrent.errors import StorageFull
from braintorrent.node.context import Context
from braintorrent.node.going_on import gone_back
from braintorrent.node.lab import Lab
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import decode_record
from braintorrent.storage import BlobStore, Ledger, file_digest, write_atomically

Origin = tuple[str, Version, float]  # author, version, weight


def told(models: Path, name: str) -> dict[str, Any]:
    """What NAME.json says; empty if there is none, or it says nothing."""
    try:
        found = json.loads((models / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def recall(lab: Lab, ledger: Ledger, blobs: BlobStore, newest: Announcement | None) -> dict[str, float]:
    """At a start: the scores of the newest version, so that nobody measures them twice; empty where unknown.

    Does what a kill after the version's publication left undone: `latest` and `best` are what the ledger says; of a
    version that a person went back from, nothing.
    """
    if newest is None or gone_back(ledger) is not None:
        return {}
    metrics = _measured(ledger)
    with contextlib.suppress(StorageFull):
        if told(lab.state.models, "latest").get("content") != newest.content:
            _keep_version(lab, blobs, "latest", newest, metrics)
        _keep_best(lab, blobs, newest, metrics)
    return metrics


def keep_published(context: Context, newest: Announcement, metrics: Mapping[str, float]) -> None:
    """The newest version as `latest`, and as `best` if no score before was as good. Waits for the disk."""
    _keep_version(context.lab, context.blobs, "latest", newest, metrics)
    _keep_best(context.lab, context.blobs, newest, metrics)


def keep_own(context: Context, name: str) -> None:
    """The newest version as NAME at the end of a run. Waits for the disk."""
    newest = context.machine.newest
    assert newest is not None  # a run ends with a version
    scores = context.metrics.get("own", {})
    _until_there_is_room(context, lambda: _keep_version(context.lab, context.blobs, name, newest, scores))


def keep_merged(
    context: Context, candidates: Iterable[Announcement], outcome: MergeOutcome, metrics: Mapping[str, float]
) -> None:
    """The learner's weights as `merged` at the end of a run. Waits for the disk; on the learner's thread."""
    newest, weights = context.machine.newest, context.lab.learner.weights()
    versions = {a.author: a.version for a in (*candidates, *([newest] if newest else []))}
    origins = [(author, versions.get(author, NOTHING), weight) for author, weight in outcome.included.items()]

    def keep() -> None:
        models = context.lab.state.models
        (models / "merged.json").unlink(missing_ok=True)  # a kill now must not leave the word about another model
        write_atomically(models / "merged.safetensors", *weights.parts)
        version = versions.get(context.lab.me, NOTHING)
        _describe(context.lab, "merged", version, weights.digest, "merged", metrics, origins)

    _until_there_is_room(context, keep)


def _measured(ledger: Ledger) -> dict[str, float]:
    """Own scores of the newest version. They were taken before it was published, so they bear the version before."""
    versions = [NOTHING, *(version for version, _ in ledger.published())]
    found = [m for m in ledger.metrics() if m.stage == "own" and m.version == versions[-2]]
    return {m.name: m.value for m in found if m.value is not None}


def _keep_best(lab: Lab, blobs: BlobStore, newest: Announcement, metrics: Mapping[str, float]) -> None:
    """The newest version as `best`, if it scores better than what lies there."""
    name = lab.learner.score
    score, before = metrics.get(name, math.nan), _best_score(lab.state.models, name)
    if not math.isnan(score) and (before is None or score > before):
        _keep_version(lab, blobs, "best", newest, metrics)


def _best_score(models: Path, name: str) -> float | None:
    """None too where the JSON is of other weights: a kill came between the two files."""
    said = told(models, "best")
    try:
        if said.get("content") != file_digest(models / "best.safetensors"):
            return None
    except FileNotFoundError:
        return None
    score: float | None = said.get("score", {}).get(name)
    return score


def _keep_version(lab: Lab, blobs: BlobStore, name: str, a: Announcement, metrics: Mapping[str, float]) -> None:
    blobs.link(a.content, lab.state.models / f"{name}.safetensors")
    parents = decode_record(blobs.read(a.record, a.record_size)).parents
    origins = [(p.author, Version(p.incarnation, p.counter), p.weight) for p in parents]
    _describe(lab, name, a.version, a.content, "own", metrics, origins)


def _describe(
    lab: Lab, name: str, version: Version, content: str, stage: str, metrics: Mapping[str, float],
    origins: Iterable[Origin],
) -> None:  # fmt: skip
    parents = [
        {"name": lab.peer.name if a == lab.me else lab.roster.name(a), "id": a, "version": str(v), "weight": w}
        for a, v, w in origins
    ]
    score = {metric: value for metric, value in metrics.items() if math.isfinite(value)}
    said = {
        "model": name, "version": str(version), "content": content, "score": score, "stage": stage,
        "unix": round(time.time(), 3), "parents": parents,
    }  # fmt: skip
    write_atomically(lab.state.models / f"{name}.json", json.dumps(said, indent=1).encode())


def _until_there_is_room(context: Context, keep: Callable[[], None]) -> None:
    """On a full disk, as soon as there is room; not at all once a person wants to go."""
    while True:
        try:
            context.blobs.with_room(keep, context.lab.learner.schema.size)
            context.notes.pop("disk", None)
            return
        except StorageFull as error:
            context.notes["disk"] = str(error)
            if context.halt.wait(context.machine.policy.storage_retry):
                return
