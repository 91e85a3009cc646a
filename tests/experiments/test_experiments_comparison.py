"""Baselines and report on real scans of two labs, with a tiny network."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.experiments import anatomy, baselines, report
from braintorrent.experiments.baselines import EVERYWHERE, Lab, compare, predict
from braintorrent.learning import open_learner
from braintorrent.methods import Method

PNG = b"\x89PNG\r\n\x1a\n"
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


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker imports torch and MONAI, for longer than it works here."""
    monkeypatch.setattr(baselines, "cores", lambda: 1)


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
    assert all(list(tests) == [*names, EVERYWHERE] for models in scores.values() for tests in models.values())
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


def test_who_only_applies_a_model_reads_no_training_case(labs: list[Lab], tmp_path: Path) -> None:
    lab = labs[0]
    path = model(lab.folder, tmp_path / "model.safetensors", 1)
    shutil.copy(federation_path(lab.folder), tmp_path)
    shutil.copytree(lab.folder / load_peer(lab.folder).data, tmp_path / "lab-a" / "data")
    (tmp_path / "lab-a" / "peer.toml").write_text('name = "lab-a"\ndata = "data"\n')
    (tmp_path / "lab-a" / "data" / "imagesTr" / "training_0.nii.gz").write_bytes(b"")
    assert predict(tmp_path / "lab-a", path, "test", 3)[1]


def check_report(scores: report.Scores, path: Path, lab: Lab, folder: Path) -> None:
    peer = report.PeerResult("lab-a", "x" * 52, 1, 1, 2, 2, 1000, 2000, 0)
    built = report.build("anatomy", 0, [peer], scores, {"total": 1.0})
    report.write(built, folder / "report.json")
    assert json.loads((folder / "report.json").read_text()) == built
    assert list(built) == ["data", "seed", "score", "part", "peers", "dice", "mean", "seconds"]
    assert set(built["mean"]) == {"local", "own", "braintorrent", "aggregate", "fedavg", "pooled"}
    everything = [dice for tests in built["dice"]["local"].values() for dice in tests.values()]
    assert len(everything) == 9  # one case each, so that a mean over labs is one over cases
    assert built["mean"]["local"] == pytest.approx(sum(everything) / 9)

    shown = text(report.table(built))
    assert "at home" in shown
    assert f"{built['mean']['pooled']:.3f}" in shown

    score, predictions = predict(lab.folder, path, "test", 3)
    assert score == "dice"
    assert predictions[0].metrics["dice"] == pytest.approx(scores["own"]["lab-a"]["lab-a"])
    curves = {"lab-a": [(1.0, 0.2), (2.0, 0.3)], "lab-b": []}
    report.draw(folder / "report.png", curves, predictions, anatomy.LABELS)
    assert (folder / "report.png").read_bytes()[:8] == PNG


CLASSES = """
format = 1
id = "federation-y"
[task]
kind = "classification"
labels = ["dark", "bright"]
size = [8, 8]
network = "ResNet"
batch = 8
steps = 2
lr = 0.01
[task.network_args]
block = "basic"
layers = [1, 1, 1, 1]
block_inplanes = [4, 4, 4, 4]
conv1_t_size = 3
conv1_t_stride = 1
no_max_pool = true
norm = ["group", {num_groups = 2}]
"""


@pytest.fixture
def classifying(tmp_path: Path) -> list[Lab]:
    """Two labs without a test part; the second has one class only in its validation part."""
    (tmp_path / "federation.toml").write_text(CLASSES)
    rng = np.random.default_rng(0)
    labs = []
    for name, bright in (("lab-a", 6), ("lab-b", 0)):
        (tmp_path / name).mkdir()
        arrays = {}
        for part, labels in (("train", np.arange(16) % 2), ("val", np.arange(12) < bright)):
            slope = np.where(labels[:, None, None], np.arange(8) / 8, 0)
            arrays[f"{part}_images"] = rng.normal(slope, 1).astype(np.float32)
            arrays[f"{part}_labels"] = labels.astype(np.uint8)[:, None]
        np.savez(tmp_path / name / "data.npz", **arrays)
        (tmp_path / name / "peer.toml").write_text(f'name = "{name}"\ndata = "data.npz"\nthreads = 1\n')
        labs.append(Lab(name, tmp_path / name, 1))
    return labs


def test_a_score_of_a_set_is_taken_over_all_labs_at_once(classifying: list[Lab], tmp_path: Path) -> None:
    own = {lab.name: model(lab.folder, tmp_path / f"{lab.name}.safetensors", 1) for lab in classifying}
    scores = compare(classifying, {"own": own}, tmp_path / "work", part="validation")
    assert set(scores) == {"local", "own", "aggregate", "fedavg", "pooled"}
    assert scores["local"] == scores["own"]
    found = []
    for lab in classifying:
        score, predictions = predict(lab.folder, own["lab-a"], "validation", 12)
        found += [(int(p.truth[1]), float(p.output[1])) for p in predictions]
    ill, well = ([value for truth, value in found if truth == kind] for kind in (1, 0))
    auc = np.mean([(a > b) + (a == b) / 2 for a in ill for b in well])  # the chance that one ranks above another
    assert scores["own"]["lab-a"][EVERYWHERE] == pytest.approx(auc)
    assert set(scores["own"]["lab-a"]) == {"lab-a", EVERYWHERE}  # where there is one class only there is no AUC

    peers = [report.PeerResult(lab.name, "x" * 52, 16, 0, 1, 1, 0, 0, 0) for lab in classifying]
    built = [report.build("d", seed, peers, scores, {}, score, "validation") for seed in (0, 1)]
    assert built[0]["mean"]["own"] == pytest.approx(np.mean([scores["own"][name][EVERYWHERE] for name in own]))
    assert built[0]["auc"]["own"].keys() == own.keys()
    built[1]["mean"] = {row: value + 0.01 for row, value in built[1]["mean"].items()}
    assert report.spread(built)["own"]["spread"] == pytest.approx(0.01)
    shown = text(report.table(built[0])) + text(report.spread_table(built))
    assert "AUC on validation cases" in shown
    assert "seeds 0, 1" in shown
    assert "nan" not in shown
    report.draw(tmp_path / "report.png", {}, predictions[:3], ["dark", "bright"], "auc")
    assert (tmp_path / "report.png").read_bytes()[:8] == PNG


def text(table: Table) -> str:
    console = Console(width=160, record=True, file=StringIO())
    console.print(table)
    return console.export_text()
