"""How well a lab's models do on its own cases: own before the last merge, merged, best, latest, and each alone.

A report is plain values, as `--json` prints it:

    {"part": "test", "models": [{"model", "version", "content": digest, "revoked": [labs in it, revoked here],
                                 "summary": {metric: value}, "labels": {label: {measure: mean}},
                                 "cases": [{"case", "labels" or "metrics"}]}]}

Means over cases leave out the cases where a measure is not defined (a label that the truth lacks has no Dice, one
that either lacks has no distance); volumes are averaged without their sign, so that too much here does not make good
for too little there. A report of a task without labels (classification) has "summary" and "metrics" only.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from braintorrent import plugins
from braintorrent.config import federation_path
from braintorrent.errors import ConfigError, DataError
from braintorrent.learning import open_learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.opening import read_weights
from braintorrent.node.keeping import told
from braintorrent.storage import file_digest, write_atomically
from braintorrent.tasks.layouts import open_dataset
from braintorrent.tasks.layouts.parts import assign
from braintorrent.workbench.contents import contents
from braintorrent.workbench.kept import Kept, Opened, borrowed, every, load, open_folder, versions

Report = dict[str, Any]
Progress = Callable[[str, int, int], None]
ABSOLUTE = ("volume_ml", "volume_percent")
MEASURES = ("dice", "hd95", "volume_ml", "volume_percent", "truth_ml", "output_ml")


def evaluate(folder: Path, part: str | None = None, *, alone: bool = False, progress: Progress) -> Report:
    """Measure every kept model on a part: by default "test" if the lab has test cases, else "validation".

    alone: also a model that never met another's, trained from the agreed start for as many versions; it is kept.
    progress(what, done, of) now and then. LocalError where there is nothing to measure, or nothing to measure on.
    """
    lab = open_folder(folder)
    with borrowed(lab.state.split) as split:
        if hasattr(plugins.load("tasks", lab.federation.kind), "open_task"):
            return _evaluate_network(lab, split, part, alone, progress)
        return _evaluate_learner(lab, split, part, alone, progress)


def _evaluate_network(lab: Opened, split: Path, part: str | None, alone: bool, progress: Progress) -> Report:
    from braintorrent.learning.inference import open_network

    models = _models(lab, split, alone, progress)
    network = open_network(lab.federation, lab.peer, lab.folder, split)
    for name in (part,) if part else ("test", "validation"):
        rows = _rows(lab, network, models, name, progress)
        if rows[0]["cases"]:
            return {"part": name, "models": rows}
    raise DataError(f"{lab.folder}: no cases in part {part or 'test or validation'} of this lab's data")


def _models(lab: Opened, split: Path, alone: bool, progress: Progress) -> list[Kept]:
    return [*every(lab), *([_alone(lab, split, progress)] if alone else [])]


def _rows(lab: Opened, network: Any, models: Sequence[Kept], part: str, progress: Progress) -> list[dict[str, Any]]:
    """One row a model; the same weights under two names are measured once."""
    rows: list[dict[str, Any]] = []
    measured: dict[str, dict[str, Any]] = {}
    for number, kept in enumerate(models):
        kept = load(kept, network)
        step = _within(progress, kept.name, number, len(models))
        if kept.content not in measured:
            measured[kept.content] = _measured(network, part, step)
        elif cases := len(rows[0]["cases"]):
            step(cases, cases)
        rows.append({**_said(lab, kept), **measured[kept.content]})
        if not rows[0]["cases"]:
            break
    return rows


def _within(progress: Progress, name: str, number: int, models: int) -> Callable[[int, int], None]:
    return lambda done, cases: progress(f"evaluating {name}", number * cases + done, models * cases)


def _measured(network: Any, part: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
    task, module = network.task, network.module
    if not hasattr(task, "measure"):
        predictions = task.evaluate(module, part)
        progress(1, 1)
        cases = [{"case": p.case, "metrics": dict(p.metrics)} for p in predictions]
        return {"summary": task.summary(predictions) if predictions else {}, "cases": cases}
    count, cases = len(task.cases(part)), []
    for done, (name, labels) in enumerate(task.measure(module, part), 1):
        cases.append({"case": name, "labels": labels})
        progress(done, count)
    return {**summarise([case["labels"] for case in cases]), "cases": cases}


def summarise(cases: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """labels: mean of each label's measures over the cases that have them; summary: of the cases' means over labels."""
    names = list(dict.fromkeys(label for case in cases for label in case))
    labels = {label: _means(case[label] for case in cases if label in case) for label in names}
    return {"summary": _means(_means(case.values()) for case in cases), "labels": labels}


def _means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(abs(value) if name in ABSOLUTE else value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def _evaluate_learner(lab: Opened, split: Path, part: str | None, alone: bool, progress: Progress) -> Report:
    """A learner that is its own task measures itself, on its validation cases."""
    if part == "test":
        raise ConfigError(f"{federation_path(lab.folder)}: task.kind: {lab.federation.kind} has no test cases")
    models, learner, rows = _models(lab, split, alone, progress), _learner(lab, split), []
    for done, kept in enumerate(models, 1):
        weights = read_weights(kept.path, learner.schema)
        learner.load(weights)
        said = _said(lab, replace(kept, content=weights.digest))
        rows.append({**said, "summary": learner.evaluate(), "cases": []})
        progress(f"evaluating {kept.name}", done, len(models))
    return {"part": "validation", "models": rows}


def _said(lab: Opened, kept: Kept) -> dict[str, Any]:
    revoked = contents(lab, kept).revoked
    return {"model": kept.name, "version": kept.version, "content": kept.content, "revoked": revoked}


def _learner(lab: Opened, split: Path) -> Any:
    method = plugins.load("methods", lab.federation.method.name).create(**lab.federation.method.options)
    return open_learner(lab.federation, lab.peer, lab.folder, method, split)


def _alone(lab: Opened, split: Path, progress: Progress) -> Kept:
    """The local-only baseline: kept from before if trained as long, on the same cases, under one federation.toml."""
    path, count = lab.state.models / "alone.safetensors", versions(lab)
    if not count:
        raise ConfigError(f"{lab.folder}: no version yet for --alone to match; braintorrent run {lab.folder}")
    agreed = blake3(lab.federation.model_dump_json().encode()).hexdigest()
    wanted = {"versions": count, "federation": agreed, **_training_cases(lab, split)}
    said = told(lab.state.models, "alone")
    same = all(said.get(key) == value for key, value in wanted.items())
    if not (same and path.is_file() and said.get("content") == file_digest(path)):
        learner = _learner(lab, split)
        train_alone(learner, count, lambda done, steps: progress("training alone", done, steps))
        write_atomically(path, *learner.weights().parts)
        content = learner.weights().digest
        said = {"model": "alone", **wanted, "content": content, "unix": round(time.time(), 3)}
        write_atomically(path.with_suffix(".json"), json.dumps(said, indent=1).encode())
    return Kept("alone", path, said={**said, "version": f"{count} versions"})


def _training_cases(lab: Opened, split: Path) -> dict[str, Any]:
    """How many cases this lab trains on, and a digest of their files' names, sizes and times.

    A learner that is its own task only counts them.
    """
    if not hasattr(plugins.load("tasks", lab.federation.kind), "open_task"):
        return {"cases": _learner(lab, split).samples}
    entries = assign(open_dataset(lab.folder / lab.peer.data), split, keep=False)["training"]
    whole = blake3()
    for entry in entries:
        whole.update(_stamp(entry.image) + _stamp(entry.label))
    return {"cases": len(entries), "data": whole.hexdigest()}


def _stamp(source: Any) -> bytes:
    """What changes when an image or label does: pixels and classes themselves, or of files what the system knows."""
    if isinstance(source, Path):
        files = sorted(source.iterdir()) if source.is_dir() else [source] if source.exists() else []
        return repr([(f.name, (known := f.stat()).st_size, known.st_mtime_ns) for f in files]).encode()
    return source.tobytes() if isinstance(source, np.ndarray) else repr(source).encode()


def write_csv(report: Report, path: Path) -> None:
    """One line per model, case and label with every measure; or, without labels, per model, case and metric."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        labelled = any("labels" in row for row in report["models"])
        writer.writerow(
            ["model", "version", "part", "case", *(("label", *MEASURES) if labelled else ("metric", "value"))]
        )
        for row in report["models"]:
            for case in row["cases"]:
                first = [row["model"], row["version"], report["part"], case["case"]]
                for label, found in case.get("labels", {}).items():
                    writer.writerow([*first, label, *(found.get(measure, "") for measure in MEASURES)])
                writer.writerows([*first, metric, value] for metric, value in case.get("metrics", {}).items())
