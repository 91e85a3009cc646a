"""A bundle in the official layout is a Learner: it starts alike everywhere, trains, halts, and leaves no trace."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from braintorrent import plugins
from braintorrent.contracts import Candidate
from braintorrent.errors import ConfigError, DataError, Diverged, LocalError
from braintorrent.learning.contract import Learner
from braintorrent.learning.merging import merge
from braintorrent.tasks import _bundle_workflow
from braintorrent.tasks._bundle_state import pack, unpack
from braintorrent.tasks.bundle import BundleLearner, digest, open_learner
from braintorrent.weights import Role, Weights
from tests.tasks.bundles import TRAIN, every_file, make_bundle, make_scans


def go_on() -> bool:
    return False


def ignore(step: int, steps: int) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A federation's folder with `bundle` in it, and one lab's scans in `scans`."""
    make_bundle(tmp_path / "bundle")
    make_scans(tmp_path / "scans", seed=0, count=5)
    return tmp_path


def opened(folder: Path, data: str = "scans", start: int = 0, seed: int = 1, **options: Any) -> BundleLearner:
    chosen = {"kind": "bundle", "bundle": "bundle", **options}
    return open_learner(chosen, folder / data, start, seed, f"{folder}/federation.toml: task")


def test_it_is_a_learner_that_learns(folder: Path) -> None:
    learner = opened(folder, epochs=2)
    assert plugins.load("tasks", "bundle").open_learner is open_learner
    assert isinstance(learner, Learner)
    assert (learner.samples, learner.score) == (4, "val_mean_dice")
    counters = [tensor.name for tensor in learner.schema.tensors if tensor.role is Role.COUNTER]
    assert any(name.endswith("num_batches_tracked") for name in counters)
    shown: list[tuple[int, int]] = []
    first = learner.train(go_on, lambda step, steps: shown.append((step, steps)))
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (first.steps, first.complete) == (4, True)
    assert learner.train(go_on, ignore).loss < first.loss
    assert set(learner.evaluate()) == {"val_mean_dice"}
    assert 0 < learner.evaluate()["val_mean_dice"] <= 1


def test_all_labs_start_alike_whatever_their_data(folder: Path) -> None:
    make_scans(folder / "more", seed=1, count=7)
    ours, theirs = opened(folder), opened(folder, "more", seed=2)
    assert ours.weights().digest == theirs.weights().digest != opened(folder, start=1).weights().digest
    assert ours.facts == theirs.facts == {"task.bundle": digest(folder / "bundle")}
    assert (ours.samples, theirs.samples, opened(folder, samples=9).samples) == (4, 6, 9)


def test_the_bundle_stays_as_it_is_and_nothing_is_printed_or_left_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before, pin, handlers = every_file(folder / "bundle"), digest(folder / "bundle"), list(logging.root.handlers)
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    learner = opened(folder)
    learner.train(go_on, ignore)
    learner.evaluate()
    assert every_file(folder / "bundle") == before
    assert digest(folder / "bundle") == pin
    assert not every_file(folder / "here")
    assert logging.root.handlers == handlers
    assert "".join(capfd.readouterr()) == ""


def test_labs_merge_with_torch_load_and_pickle_out_of_reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("unpickling was reached")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, forbidden)
    method = plugins.load("methods", "braintorrent").create()
    make_scans(folder / "more", seed=1)
    labs = {"a": opened(folder), "b": opened(folder, "more", seed=2)}
    for version in range(2):
        for learner in labs.values():
            learner.train(go_on, ignore)
        merged = {}
        for name, learner in labs.items():
            (other,) = labs.keys() - {name}
            path = folder / f"{other}{version}.safetensors"
            path.write_bytes(b"".join(labs[other].weights().parts))
            out = Weights(learner.schema)
            with path.open("rb") as file:
                them = Candidate(other, labs[other].samples, file.fileno())
                merge(method, learner.weights(), Candidate(name, learner.samples, -1), [them], out)
            merged[name] = out
        for name, learner in labs.items():
            learner.load(merged[name])
    assert labs["a"].weights().digest == labs["b"].weights().digest
    assert labs["a"].evaluate()["val_mean_dice"] > 0


def halt_after(iterations: int, learner: BundleLearner) -> tuple[Callable[[], bool], Callable[[int, int], None]]:
    seen = [0]

    def progress(step: int, _steps: int) -> None:
        seen[0] = step

    return lambda: seen[0] >= iterations, progress


def test_a_halted_version_begins_again_and_ends_as_if_never_halted(folder: Path) -> None:
    whole, halted = opened(folder), opened(folder)
    for learner in (whole, halted):
        learner.train(go_on, ignore)
    before = halted.weights().digest
    report = halted.train(*halt_after(1, halted))
    assert (report.steps, report.complete) == (1, False)
    assert halted.weights().digest == before
    for learner in (whole, halted):
        assert learner.train(go_on, ignore).steps == 2
    assert halted.weights().digest == whole.weights().digest


def test_a_kill_inside_a_version_costs_that_version_only(folder: Path) -> None:
    whole, killed = opened(folder), opened(folder)
    for learner in (whole, killed):
        for _ in range(3):  # past a step of the schedule
            learner.train(go_on, ignore)
    checkpoints: list[tuple[Weights, dict[str, np.ndarray]]] = []
    killed.train(go_on, lambda _step, _steps: checkpoints.append((killed.weights().copy(), killed.state())))
    weights, state = checkpoints[0]
    again = opened(folder)
    again.load(weights)
    again.restore({name: array.copy() for name, array in state.items()})
    for learner in (whole, again):
        for _ in range(2):
            learner.train(go_on, ignore)
    assert again.weights().digest == whole.weights().digest
    assert again.state().keys() == whole.state().keys()


def test_the_optimiser_of_another_bundle_is_not_taken(folder: Path) -> None:
    learner = opened(folder)
    learner.train(go_on, ignore)
    state, weights = learner.state(), learner.weights().copy()
    adam = {**TRAIN["optimizer"], "_target_": "torch.optim.SGD", "momentum": 0.9}
    shutil.rmtree(folder / "bundle")
    other = opened(make_bundle(folder / "bundle", optimizer=adam).parent)
    other.load(weights)
    other.restore(state)
    assert other.train(go_on, ignore).complete


def test_a_loss_that_is_not_finite_undoes_the_version(folder: Path) -> None:
    learner = opened(folder, overrides={"lr": 1e30}, epochs=3)
    before = learner.weights().digest
    with pytest.raises(Diverged, match="training diverged at iteration"):
        learner.train(go_on, ignore)
    assert learner.weights().digest == before


def test_overrides_are_put_in(folder: Path) -> None:
    learner = opened(folder, overrides={"lr": 0.5, "train#dataloader#batch_size": 1})
    (group,) = learner._stateful["optimizer"].param_groups
    assert group["lr"] == 0.5
    assert learner.train(go_on, ignore).steps == 4


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"lr": "$__import__('os').system('true')"}, "overrides: lr: .* would be run as code"),
        ({"lr": "@optimizer"}, "would be run as code"),
        ({"lr": "%/etc/passwd"}, "would be run as code"),
        ({"loss": {"_target_": "os.system"}}, "overrides: loss._target_: a name that begins with _"),
        ({"loss#_target_": "os.system"}, "a name that begins with _ would choose code"),
        ({"loss::_target_": "os.system"}, "a name that begins with _ would choose code"),
        ({"images": ["$1"]}, "overrides: images.0: .* would be run as code"),
        ({"ckpt_dir": "/etc"}, "overrides: ckpt_dir: leads to files outside the bundle"),
        ({"images": ["a/../../b"]}, "overrides: images.0: leads to files outside the bundle"),
        ({"dataset_dir": "/"}, "cannot be overridden, as it follows from data of peer.toml"),
        ({"train#trainer#max_epochs": 3}, "as it follows from task.epochs"),
        ({"lrr": 1.0}, "the bundle has no such id; did you mean lr"),
    ],
)
def test_a_federation_file_carries_no_code(folder: Path, overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(folder, overrides=overrides)


def test_the_digest_covers_what_can_run_and_nothing_else(folder: Path) -> None:
    bundle = folder / "bundle"
    pin = digest(bundle)
    for apart in ("models/model.pt", "docs/README.md", "eval/metrics.csv", "configs/__pycache__/a.pyc", ".git/HEAD"):
        (bundle / apart).parent.mkdir(parents=True, exist_ok=True)
        (bundle / apart).write_text("other")
        assert digest(bundle) == pin
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("")
    with_script = digest(bundle)
    (bundle / "scripts" / "__init__.py").rename(bundle / "scripts" / "other.py")
    config = bundle / "configs" / "train.json"
    pins = {pin, with_script, digest(bundle)}
    config.write_bytes(config.read_bytes().replace(b"0.01", b"0.02"))
    assert len(pins | {digest(bundle)}) == 4
    (bundle / "scripts" / "link.py").symlink_to(config)
    with pytest.raises(ConfigError, match=r"link.py: a bundle holds no symbolic links"):
        opened(folder)


def test_a_pinned_bundle_must_be_that_one(folder: Path) -> None:
    pin = digest(folder / "bundle")
    assert opened(folder, digest=pin).facts["task.bundle"] == pin
    with pytest.raises(ConfigError, match=f"digest: the bundle at .* is {pin}, agreed is {'0' * 64}"):
        opened(folder, digest="0" * 64)


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def remove(train: dict[str, Any]) -> None:
        for key in path[:-1]:
            train = train[key]
        del train[path[-1]]

    return remove


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("network_def"), "configs/train.json has no network_def, the network"),
        (without("train", "trainer"), "has no train#trainer, the trainer"),
        (without("validate", "evaluator"), "has no validate#evaluator, the evaluator"),
        (without("dataset_dir"), "has no dataset_dir, the folder its data comes from"),
        (without("validate", "evaluator", "key_val_metric"), "score: needed, as the bundle's evaluator has no key"),
        (lambda train: train.update(lr="$1 / 0"), "bundle: ZeroDivisionError at lr; python -m"),
        (
            lambda train: train.update(images="$[open(@dataset_dir + '/SMITH JOHN.nii')]"),
            "bundle: FileNotFoundError at images; ",
        ),
    ],
)
def test_a_bundle_that_lacks_something_is_told_in_one_line(folder: Path, change: Any, said: str) -> None:
    config = folder / "bundle" / "configs" / "train.json"
    train = json.loads(config.read_text())
    change(train)
    config.write_text(json.dumps(train))
    with pytest.raises(ConfigError, match=said) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    assert "SMITH" not in str(caught.value)


def test_a_scan_that_cannot_be_read_in_training_is_not_named(folder: Path) -> None:
    """The data are read when a version is trained, and a name may have blanks in it."""
    dataset = {**TRAIN["train"], "dataset": {**TRAIN["train"]["dataset"], "cache_num": 0}}
    validate = {**TRAIN["validate"], "dataset": {**TRAIN["validate"]["dataset"], "cache_num": 0}}
    shutil.rmtree(folder / "bundle")
    make_bundle(folder / "bundle", train=dataset, validate=validate)
    learner = opened(folder)
    for path in (folder / "scans" / "imagesTr").iterdir():
        path.write_bytes(b"no scan")
    for act in (lambda: learner.train(go_on, ignore), learner.evaluate):
        with pytest.raises(LocalError, match=r"federation.toml: task: (training|evaluation): bundle: \w+; ") as caught:
            act()
        assert "case" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_bundle_elsewhere_needs_its_digest(folder: Path) -> None:
    pin, elsewhere = digest(folder / "bundle"), [str(folder / "bundle"), f"../{folder.name}/bundle"]
    for path in elsewhere:
        with pytest.raises(ConfigError, match="digest: needed where bundle leads out of"):
            opened(folder, bundle=path)
        assert opened(folder, bundle=path, digest=pin).facts["task.bundle"] == pin


def test_what_is_missing_on_disk_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"bundle: .*/elsewhere: no such folder; install the bundle there by hand"):
        opened(folder, bundle="elsewhere")
    with pytest.raises(DataError, match="/nowhere: no such folder"):
        opened(folder, "nowhere")
    make_scans(folder / "one", seed=0, count=1)
    with pytest.raises(DataError, match="it finds no training case"):
        opened(folder, "one")
    with pytest.raises(ConfigError, match="algo: no 'other' is installed; there are: monai"):
        opened(folder, algo="other")
    with monkeypatch.context() as patch:
        patch.setattr(_bundle_workflow, "find_spec", lambda _name: None)
        with pytest.raises(ConfigError, match=r"bundles need pytorch-ignite: pip install"):
            opened(folder)
    (folder / "bundle" / "configs" / "train.json").rename(folder / "train.json")
    with pytest.raises(ConfigError, match=r"no training configuration in it; needed is one of configs/train\.json"):
        opened(folder)
    (folder / "bundle" / "configs" / "metadata.json").unlink()
    with pytest.raises(ConfigError, match=r"no configs/metadata\.json in it"):
        opened(folder)


def test_a_configuration_in_yaml_is_read_too(folder: Path) -> None:
    import yaml

    config = folder / "bundle" / "configs" / "train.json"
    digests = [opened(folder).weights().digest]
    config.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(config.read_text())))
    config.unlink()
    assert [opened(folder).weights().digest] == digests


def test_a_list_in_the_labs_folder_replaces_the_bundles(folder: Path) -> None:
    config = folder / "bundle" / "configs" / "train.json"
    train = json.loads(config.read_text())
    train["imports"].append("$import json")
    train["data_list_file_path"] = "$@bundle_root + '/configs/datalist.json'"
    train["images"] = "$[@dataset_dir + '/' + c['image'] for c in json.load(open(@data_list_file_path))['training']]"
    train["labels"] = "$[@dataset_dir + '/' + c['label'] for c in json.load(open(@data_list_file_path))['training']]"
    config.write_text(json.dumps(train))
    cases = [{part: f"{part}sTr/case{n}.nii.gz" for part in ("image", "label")} for n in (0, 2, 4)]
    (folder / "scans" / "dataset.json").write_text(json.dumps({"training": cases}))
    assert opened(folder).samples == 2


ALGO = '''
import numpy as np
from monai.fl.client import ClientAlgo
from monai.fl.utils.exchange_object import ExchangeObject


class Counting(ClientAlgo):
    """One weight and one counter; each version adds 1 to both. No trainer, no torch."""

    def __init__(self, bundle_root, local_epochs, **_others):
        self.weights = {"layer.weight": np.zeros(3, np.float32), "layer.count": np.array(0)}
        self.aborted = False

    def train(self, data, extra=None):
        import time

        self.weights = {name: np.asarray(value) + 1 for name, value in data.weights.items()}
        while WAIT and not self.aborted:
            time.sleep(0.01)

    def get_weights(self, extra=None):
        return ExchangeObject(weights=self.weights, statistics={"num_executed_iterations": 5})

    def evaluate(self, data, extra=None):
        return ExchangeObject(metrics={"height": float(data.weights["layer.weight"].mean()), "name": "x"})

    def abort(self, extra=None):
        self.aborted = True


WAIT = False
'''


def test_any_installed_client_algo_can_run_a_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site"
    (site / "counting-1.dist-info").mkdir(parents=True)
    (site / "counting.py").write_text(ALGO)
    (site / "counting-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (site / "counting-1.dist-info" / "entry_points.txt").write_text("[braintorrent.algos]\ncount = counting:Counting\n")
    monkeypatch.syspath_prepend(site)
    with pytest.raises(ConfigError, match="samples: needed"):
        opened(folder, algo="count")
    with pytest.raises(ConfigError, match="score: needed"):
        opened(folder, algo="count", samples=3)
    learner = opened(folder, algo="count", samples=3, score="height")
    assert learner.train(go_on, ignore).steps == 5
    learner.train(go_on, ignore)
    assert learner.weights().view("layer.weight").tolist() == [2.0, 2.0, 2.0]
    assert learner.weights().view("layer.count") == 2
    assert learner.evaluate() == {"height": 2.0}
    monkeypatch.setattr(sys.modules["counting"], "WAIT", True)
    asked = iter([False, True])
    assert not learner.train(lambda: next(asked), ignore).complete
    assert learner.algo.aborted
    assert learner.weights().view("layer.count") == 2


def test_states_survive_as_arrays() -> None:
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "moment": torch.randn(2, 3).to(torch.bfloat16)}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None}], "rate": np.float64(0.5), "huge": float("inf"),
        "empty": torch.zeros(0, 4), "function": [None, len], "method": os.path.join,
    }  # fmt: skip
    found = unpack({name: array.copy() for name, array in pack(tree).items()})
    assert torch.equal(found["state"][0]["moment"], tree["state"][0]["moment"])
    assert found["state"][0]["step"] == 3
    assert found["groups"] == [{"lr": 0.1, "betas": [0.9, 0.999], "foreach": None}]
    assert (found["rate"], found["huge"], found["empty"].shape) == (0.5, float("inf"), (0, 4))
    assert found["function"] == [None, None]
    assert "method" not in found
