"""Baselines and report on real scans of two labs, with a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.experiments import anatomy, report
from braintorrent.experiments.baselines import Lab, compare, predict
from braintorrent.learning import open_learner
from braintorrent.methods import Method

FEDERATION = """
format = 1
id = "federation-x"
[task]
kind = "segmentation"
labels = ["background", "CSF", "grey", "white"]
dims = 2
network = "UNet"
network_args = {channels = [4, 8], strides = [2], num_res_units = 0, norm = "batch"}
patch = [80, 96]
batch = 2
steps = 2
lr = 0.01
"""


def model(folder: Path, path: Path, versions: int) -> Path:
    """What a peer would leave behind: trained alone, without the baselines' code."""
    learner = open_learner(load_federation(federation_path(folder)), load_peer(folder), folder, Method())
    for _ in range(versions):
        learner.train(lambda: False, lambda step, steps: None)
    path.write_bytes(b"".join(learner.weights().parts))
    return path


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> list[Lab]:
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "federation.toml").write_text(FEDERATION)
    data = anatomy.make_labs(folder / "data", ["lab-a", "lab-b"], 0, {"training": 1, "validation": 0, "test": 1})
    third = {"training": 3, "validation": 0, "test": 1}
    data |= anatomy.make_labs(folder / "data", ["lab-c"], 1, third)
    for name, path in data.items():
        (folder / name).mkdir()
        (folder / name / "peer.toml").write_text(f'name = "{name}"\ndata = "{path}"\nthreads = 1\n')
    return [Lab(name, folder / name, 2) for name in data]


def test_rows_are_what_they_say(labs: list[Lab], tmp_path: Path) -> None:
    own = {lab.name: model(lab.folder, tmp_path / f"{lab.name}.safetensors", 2) for lab in labs}
    merged = dict.fromkeys(own, own["lab-a"])
    said: list[str] = []
    scores = compare(labs, {"own": own, "braintorrent": merged}, tmp_path / "work", lambda what, *_: said.append(what))

    names = [lab.name for lab in labs]
    assert {row: sorted(models) for row, models in scores.items()} == {
        "local": names, "own": names, "braintorrent": names, "aggregate": ["aggregate"], "fedavg": ["fedavg"],
        "pooled": ["pooled"],
    }  # fmt: skip
    assert all(list(tests) == names for models in scores.values() for tests in models.values())
    assert len(said) == 3 + 2 + 3
    # A lab that trained alone is its own baseline: same seeds, same batches, same steps.
    assert scores["local"] == scores["own"]
    assert all(scores["braintorrent"][name] == scores["own"]["lab-a"] for name in names)

    models = [load_file(path) for path in own.values()]
    mean = load_file(tmp_path / "work" / "aggregate.safetensors")
    for name, values in mean.items():
        if values.dtype == np.float32:
            expected = (models[0][name] + models[1][name] + 3 * models[2][name]) / 5
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
    pooled = json.loads((tmp_path / "work" / "pooled-data" / "dataset.json").read_text())
    assert len(pooled["training"]) == 5
    counted = load_file(tmp_path / "work" / "pooled.safetensors")
    steps = [int(value) for name, value in counted.items() if name.endswith("num_batches_tracked")]
    assert steps
    assert set(steps) == {3 * 2 * 2}
    served = load_file(tmp_path / "work" / "fedavg.safetensors")
    assert {int(value) for name, value in served.items() if name.endswith("num_batches_tracked")} == {2 * 2}

    check_report(scores, own["lab-a"], labs[0], tmp_path)


def check_report(scores: report.Scores, path: Path, lab: Lab, folder: Path) -> None:
    peer = report.PeerResult("lab-a", "x" * 52, 1, 1, 2, 2, 1000, 2000, 0)
    built = report.build("anatomy", 0, [peer], scores, {"total": 1.0})
    report.write(built, folder / "report.json")
    assert json.loads((folder / "report.json").read_text()) == built
    assert list(built) == ["data", "seed", "peers", "dice", "mean", "seconds"]
    assert set(built["mean"]) == {"local", "own", "braintorrent", "aggregate", "fedavg", "pooled"}
    everything = [dice for tests in scores["local"].values() for dice in tests.values()]
    assert len(everything) == 9
    assert built["mean"]["local"] == pytest.approx(sum(everything) / 9)

    from rich.console import Console

    console = Console(width=140, record=True, file=(folder / "table.txt").open("w"))
    console.print(report.table(built))
    shown = console.export_text()
    assert "at home" in shown
    assert f"{built['mean']['pooled']:.3f}" in shown

    prediction = predict(lab.folder, path)[0]
    assert prediction.metrics["dice"] == pytest.approx(scores["own"]["lab-a"]["lab-a"])
    curves = {"lab-a": [(1.0, 0.2), (2.0, 0.3)], "lab-b": []}
    report.draw(folder / "report.png", curves, prediction, anatomy.LABELS)
    assert (folder / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
