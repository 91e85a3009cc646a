"""evaluate: its Dice is the task's, its distances and volumes are of the scan's own millimetres."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from braintorrent import plugins
from braintorrent.cli import cli
from braintorrent.config import federation_path, load_federation
from braintorrent.contracts import mean_metrics
from braintorrent.errors import DataError
from braintorrent.learning.inference import open_network
from braintorrent.storage import StatePaths
from braintorrent.tasks._measures import measures
from braintorrent.workbench.evaluating import evaluate
from braintorrent.workbench.kept import find, load, open_folder


def quiet(what: str, done: int, of: int) -> None:
    pass


def test_all_is_measured_at_the_end_though_two_models_are_one(any_lab: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(any_lab.folder.parent, tmp_path / "copy")) / any_lab.folder.name
    models = StatePaths(folder).models
    shutil.copyfile(models / "own.safetensors", models / "merged.safetensors")
    (models / "merged.json").unlink()
    seen: list[tuple[int, int]] = []
    own, merged = evaluate(folder, progress=lambda _, done, of: seen.append((done, of)))["models"]
    assert own["content"] == merged["content"]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == 2 * len(own["cases"])


def test_dice_is_the_tasks(any_lab: Any) -> None:
    report = evaluate(any_lab.folder, progress=quiet)
    assert report["part"] == "test"
    assert [row["model"] for row in report["models"]] == ["own", "merged"]
    opened = open_folder(any_lab.folder)
    network = open_network(opened.federation, opened.peer, any_lab.folder)
    load(find(opened), network)
    task = plugins.load("tasks", "segmentation").open_task(
        load_federation(federation_path(any_lab.folder)).task, any_lab.folder / "data", "cpu", "task"
    )
    expected = mean_metrics(task.evaluate(network.module, "test"))
    row = report["models"][1]
    assert row["summary"]["dice"] == pytest.approx(expected["dice"])
    for label in ("ball", "core"):
        assert row["labels"][label]["dice"] == pytest.approx(expected[f"dice_{label}"])
    assert expected["dice"] > report["models"][0]["summary"]["dice"]
    assert len(row["cases"]) == 2


def cubes(shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    truth, output = torch.zeros(1, 24, 24, 24, dtype=torch.uint8), torch.zeros(1, 24, 24, 24, dtype=torch.uint8)
    truth[:, 4:12, 4:12, 4:12] = 1
    output[:, 4:12, 4:12, 4 + shift : 12 + shift] = 1
    return output, truth


def test_distances_are_in_millimetres_and_volumes_in_millilitres() -> None:
    output, truth = cubes(shift=3)
    found = measures(output, truth, ["background", "cube", "absent"], (1.0, 1.0, 2.5))
    assert found["cube"]["hd95"] == pytest.approx(7.5)
    assert found["cube"]["truth_ml"] == pytest.approx(8**3 * 2.5 / 1000)
    assert found["cube"]["volume_ml"] == pytest.approx(0)
    assert found["cube"]["dice"] == pytest.approx(5 / 8)
    assert found["absent"] == {"truth_ml": 0, "output_ml": 0, "volume_ml": 0}  # nothing to compare with
    output[:, 4:12, 4:12, 11:] = 0
    smaller = measures(output, truth, ["background", "cube"], (1.0, 1.0, 2.5))["cube"]
    assert smaller["volume_percent"] == pytest.approx(-50)
    assert smaller["volume_ml"] == pytest.approx(-(8**3) * 2.5 / 2000)
    assert "hd95" not in measures(torch.zeros_like(truth), truth, ["background", "cube"], (1, 1, 1))["cube"]


def test_table_csv_and_json_hold_the_same_figures(lab: Any, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    run = CliRunner().invoke(cli, ["evaluate", str(lab.folder), "--json", "--csv", str(file)])
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout)
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == 2 * 2 * 2  # models, cases, labels
    for row in report["models"]:
        mine = [float(r["dice"]) for r in rows if (r["model"], r["label"]) == (row["model"], "ball")]
        assert sum(mine) / len(mine) == pytest.approx(row["labels"]["ball"]["dice"])
    shown = CliRunner().invoke(cli, ["evaluate", str(lab.folder), "--cases"])
    assert shown.exit_code == 0, shown.output
    for text in ("merged", "own, before the last merge", "HD95 mm", "test case 1", "core",
                 f"{report['models'][1]['summary']['dice']:.3f}"):  # fmt: skip
        assert text in shown.stdout


def test_the_lab_alone_trains_once(lab: Any) -> None:
    steps: list[int] = []

    def count(what: str, done: int, of: int) -> None:
        if what == "training alone":
            steps.append(of)

    first = evaluate(lab.folder, "validation", alone=True, progress=count)
    assert steps == [4] * 4  # two versions of two steps
    again = evaluate(lab.folder, "validation", alone=True, progress=count)
    assert len(steps) == 4
    assert first["models"][-1] == again["models"][-1]
    assert first["models"][-1]["model"] == "alone"
    path = StatePaths(lab.folder).models / "alone.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "versions": 1}))
    evaluate(lab.folder, "validation", alone=True, progress=count)
    assert len(steps) == 8  # it was trained for another number of versions
    scan = lab.folder / "data" / "training0.nii.gz"
    os.utime(scan, ns=(0, scan.stat().st_mtime_ns + 10**9))
    evaluate(lab.folder, "validation", alone=True, progress=count)
    assert len(steps) == 12  # a training case changed
    assert not StatePaths(lab.folder).split.exists(), "only a run records the parts"


def test_nothing_to_measure_on_is_said(lab: Any) -> None:
    path = lab.folder / "data" / "dataset.json"
    listed = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(listed), "test": []}))
        assert evaluate(lab.folder, progress=quiet)["part"] == "validation"
        with pytest.raises(DataError, match="no cases in part test"):
            evaluate(lab.folder, "test", progress=quiet)
    finally:
        path.write_text(listed)
