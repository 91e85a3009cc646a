"""How well a lab's models do on its own cases: own before the last merge, merged, best, latest, and each alone.

A report is plain values, as `--json` prints it:

    {"part": "test", "models": [{"model", "version", "content": digest, "summary": {metric: value},
                                 "labels": {label: {measure: mean}}, "cases": [{"case", "labels" or "metrics"}]}]}

Means over cases leave out the cases where a measure is not defined (a label that the truth lacks has no Dice, one
that either lacks has no distance); volumes are averaged without their sign, so that too much here does not make good
for too little there. A report of a task without labels (classification) has "summary" and "metrics" only.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from braintorrent import plugins
from braintorrent.config import federation_path
from braintorrent.errors import ConfigError, DataError
from braintorrent.learning import open_learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.opening import read_weights
from braintorrent.storage import write_atomically
from braintorrent.workbench.kept import Kept, Opened, every, load, open_folder, versions

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
    if not hasattr(plugins.load("tasks", lab.federation.kind), "open_task"):
        return _evaluate_learner(lab, part, alone, progress)
    from braintorrent.learning.inference import open_network

    models = _models(lab, alone, progress)
    network = open_network(lab.federation, lab.peer, lab.folder, lab.state.split)
    for name in (part,) if part else ("test", "validation"):
        rows = _rows(network, models, name, progress)
        if rows[0]["cases"]:
            return {"part": name, "models": rows}
    raise DataError(f"{folder}: no cases in part {part or 'test or validation'} of this lab's data")


def _models(lab: Opened, alone: bool, progress: Progress) -> list[Kept]:
    return [*every(lab), *([_alone(lab, progress)] if alone else [])]


def _rows(network: Any, models: Sequence[Kept], part: str, progress: Progress) -> list[dict[str, Any]]:
    """One row a model; the same weights under two names are measured once."""
    rows: list[dict[str, Any]] = []
    measured: dict[str, dict[str, Any]] = {}
    for number, kept in enumerate(models):
        kept = load(kept, network)
        if kept.content not in measured:
            measured[kept.content] = _measured(network, part, _within(progress, kept.name, number, len(models)))
        rows.append({"model": kept.name, "version": kept.version, "content": kept.content, **measured[kept.content]})
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


def _evaluate_learner(lab: Opened, part: str | None, alone: bool, progress: Progress) -> Report:
    """A learner that is its own task measures itself, on its validation cases."""
    if part == "test":
        raise ConfigError(f"{federation_path(lab.folder)}: task.kind: {lab.federation.kind} has no test cases")
    models, learner, rows = _models(lab, alone, progress), _learner(lab), []
    for done, kept in enumerate(models, 1):
        weights = read_weights(kept.path, learner.schema)
        learner.load(weights)
        said = {"model": kept.name, "version": kept.version, "content": weights.digest}
        rows.append({**said, "summary": learner.evaluate(), "cases": []})
        progress(f"evaluating {kept.name}", done, len(models))
    return {"part": "validation", "models": rows}


def _learner(lab: Opened) -> Any:
    method = plugins.load("methods", lab.federation.method.name).create(**lab.federation.method.options)
    return open_learner(lab.federation, lab.peer, lab.folder, method, lab.state.split)


def _alone(lab: Opened, progress: Progress) -> Kept:
    """The local-only baseline: kept from before if it was trained as long, under the same federation.toml."""
    path, count = lab.state.models / "alone.safetensors", versions(lab)
    if not count:
        raise ConfigError(f"{lab.folder}: no version yet for --alone to match; braintorrent run {lab.folder}")
    agreed = blake3(lab.federation.model_dump_json().encode()).hexdigest()
    try:
        said = json.loads(path.with_suffix(".json").read_bytes())
        known = (said["versions"], said["federation"], said["content"]) == (
            count, agreed, blake3(path.read_bytes()).hexdigest()
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        learner = _learner(lab)
        train_alone(learner, count, lambda done, steps: progress("training alone", done, steps))
        write_atomically(path, *learner.weights().parts)
        said = {
            "model": "alone", "versions": count, "content": learner.weights().digest, "federation": agreed,
            "unix": round(time.time(), 3),
        }  # fmt: skip
        write_atomically(path.with_suffix(".json"), json.dumps(said, indent=1).encode())
    return Kept("alone", path, said={**said, "version": f"{count} versions"})


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
