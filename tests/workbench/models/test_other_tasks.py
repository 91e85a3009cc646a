"""What there is for a task without segmentations, and for a learner that is its own task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.errors import ConfigError, DataError
from braintorrent.learning import open_learner
from braintorrent.methods import Method
from braintorrent.storage import StatePaths
from braintorrent.workbench.evaluating import evaluate
from braintorrent.workbench.exporting import export
from braintorrent.workbench.predicting import Predictor


def quiet(what: str, done: int, of: int) -> None:
    pass


def a_lab(root: Path, task: dict[str, Any], data: str = "") -> Path:
    """A peer folder with a merged model: that of the start, trained for one version."""
    folder = root / "lab-a"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "tiny-federation", "task": task}))
    (folder / "peer.toml").write_text(tomli_w.dumps({"name": "lab-a", "data": data, "device": "cpu", "threads": 1}))
    learner = open_learner(load_federation(federation_path(folder)), load_peer(folder), folder, Method())
    learner.train(lambda: False, quiet_steps)
    models = StatePaths(folder).models
    models.mkdir(parents=True)
    (models / "merged.safetensors").write_bytes(b"".join(learner.weights().parts))
    return folder


def quiet_steps(step: int, steps: int) -> None:
    pass


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Bright and dark images of 16 x 16 pixels, as MedMNIST has them."""
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 16), ("val", 8), ("test", 8)):
        labels = np.arange(count)[:, None] % 2
        arrays[f"{part}_images"] = (rng.normal(60, 20, (count, 16, 16)) + 120 * labels[:, :, None]).clip(0, 255)
        arrays[f"{part}_labels"] = labels
    (tmp_path / "lab-a").mkdir()
    np.savez(tmp_path / "lab-a" / "tiny.npz", **{k: v.astype(np.uint8) for k, v in arrays.items()})
    task = {
        "kind": "classification", "labels": ["dark", "bright"], "size": [16, 16], "network": "DenseNet", "steps": 6,
        "network_args": {"init_features": 4, "growth_rate": 4, "block_config": [1, 1]}, "batch": 8, "lr": 0.02,
    }  # fmt: skip
    return a_lab(tmp_path, task, "tiny.npz")


def test_classification_has_a_summary_and_probabilities(classes: Path, tmp_path: Path) -> None:
    from PIL import Image

    report = evaluate(classes, progress=quiet)
    (row,) = report["models"]
    assert report["part"] == "test"
    assert {"accuracy", "auc", "f1"} <= row["summary"].keys()
    assert len(row["cases"]) == 8
    shown = CliRunner().invoke(cli, ["evaluate", str(classes)])
    assert shown.exit_code == 0, shown.output
    assert f"{row['summary']['auc']:.3f}" in shown.stdout
    Image.fromarray(np.full((16, 16), 190, np.uint8)).save(tmp_path / "x.png")
    run = CliRunner().invoke(cli, ["predict", str(classes), str(tmp_path / "x.png"), "--json"])
    assert run.exit_code == 0, run.output
    (scan,) = json.loads(run.stdout)["scans"]
    assert sum(scan["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match="scan 2: "):
        Predictor(classes).probabilities([tmp_path / "x.png", tmp_path / "none.png"], quiet)
    with pytest.raises(ConfigError, match="has no MONAI bundle to export"):
        export(classes, tmp_path / "bundle")


def test_a_learner_that_is_its_own_task_measures_itself(tmp_path: Path) -> None:
    folder = a_lab(tmp_path, {"kind": "standin"})
    report = evaluate(folder, progress=quiet)
    assert (report["part"], report["models"][0]["model"]) == ("validation", "merged")
    assert 0 < report["models"][0]["summary"]["score"] <= 1
    with pytest.raises(ConfigError, match="standin has no test cases"):
        evaluate(folder, "test", progress=quiet)
    with pytest.raises(ConfigError, match="trains by itself and has no network to show"):
        Predictor(folder)
