"""The torch learner: a checkpoint continues to the bit, merges reach the optimiser as agreed, hooks are called."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from braintorrent import plugins
from braintorrent.config import Federation, Peer
from braintorrent.contracts import Prediction, mean_metrics
from braintorrent.errors import ConfigError, Diverged
from braintorrent.learning.contract import Learner
from braintorrent.learning.learner import TorchLearner
from braintorrent.learning.opening import _precision, lab_seed, open_learner, read_weights
from braintorrent.methods import Method


class Regression:
    """A contracts.Task of a few hundred numbers, with all that makes checkpoints hard."""

    score, samples, steps = "fit", 5, 6

    def __init__(self, optimiser: type = torch.optim.Adam, **arguments: Any) -> None:
        self.make, self.arguments = optimiser, {"lr": 0.05} | arguments

    def network(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1),
        )  # fmt: skip

    def batch(self, seed: int, step: int) -> Any:
        inputs = torch.from_numpy(np.random.default_rng([seed, step]).standard_normal((16, 4), np.float32))
        return inputs, inputs.sum(1, keepdim=True)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    def optimiser(self, parameters: Any) -> torch.optim.Optimizer:
        return self.make(parameters, **self.arguments)

    def evaluate(self, model: nn.Module, part: str, *, arrays: bool = False) -> list[Prediction]:
        model.eval()
        with torch.no_grad():
            return [Prediction(f"{part} 0", {"fit": -self.loss(model, self.batch(99, n)).item()}) for n in range(2)]

    def summary(self, predictions: Any) -> dict[str, float]:
        return mean_metrics(predictions)


def go_on() -> bool:
    return False


def ignore(step: int, steps: int) -> None:
    pass


OPTIMISERS: list[tuple[type, dict[str, Any]]] = [
    (torch.optim.Adam, {}), (torch.optim.AdamW, {"amsgrad": True}), (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.SGD, {}), (torch.optim.NAdam, {}), (torch.optim.Adagrad, {}),
]  # fmt: skip


@pytest.mark.parametrize("after_merge", ["reset", "keep"])
@pytest.mark.parametrize(("optimiser", "arguments"), OPTIMISERS)
def test_a_checkpoint_continues_to_the_bit(optimiser: type, arguments: dict[str, Any], after_merge: Any) -> None:
    class PersonalNorm(Method):
        def role(self, name: str, role: str) -> str:
            return "personal" if name.startswith("5.") else role

    def fresh() -> TorchLearner:
        return TorchLearner(Regression(optimiser, **arguments), PersonalNorm(), 0, 7, after_merge)

    whole, before, after = fresh(), fresh(), fresh()
    for _ in range(2):
        whole.train(go_on, ignore)
    before.train(go_on, ignore)
    done: list[int] = []
    assert not before.train(lambda: len(done) == 2, lambda step, steps: done.append(step)).complete
    torch.manual_seed(123)  # another process has another random state
    after.load(before.weights())
    after.restore({name: array.copy() for name, array in before.state().items()})
    report = after.train(go_on, ignore)
    assert (report.steps, report.complete) == (6, True)
    assert after.weights().digest == whole.weights().digest
    assert after.weights().view("1.num_batches_tracked") == 12
    ours, theirs = after.state(), whole.state()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours if name not in ("seconds", "loss"))


def test_training_that_diverged_leaves_personal_tensors_as_they_were() -> None:
    class PersonalHead(Method):
        def role(self, name: str, role: str) -> str:
            return "personal" if name.startswith("5.") else role

    learner = TorchLearner(Regression(torch.optim.SGD), PersonalHead(), 0, 7)
    learner.train(go_on, ignore)
    own = learner.weights().copy()
    kept = {name: array for name, array in learner.state().items() if name.startswith("personal.")}
    absurd = own.copy()
    absurd.view("6.weight")[:] = 1e30
    learner.load(absurd)
    with pytest.raises(Diverged):
        learner.train(go_on, ignore)
    assert kept
    for name, array in kept.items():
        assert np.array_equal(learner.state()[name], array)
    learner.load(own)
    assert math.isfinite(learner.train(go_on, ignore).loss)


def test_without_a_checkpoint_training_goes_on_with_the_next_batches() -> None:
    seen: list[int] = []

    class Noting(Regression):
        def batch(self, seed: int, step: int) -> Any:
            seen.append(step)
            return super().batch(seed, step)

    learner = TorchLearner(Noting(), Method(), 0, 7)
    learner.restore(learner.after(3))
    assert learner.train(go_on, ignore).complete
    assert seen == [*range(18, 24)]


@pytest.mark.parametrize("after_merge", ["reset", "keep"])
def test_the_optimiser_follows_its_rule_after_a_merge(after_merge: Any) -> None:
    learner = TorchLearner(Regression(), Method(), 0, 7, after_merge)
    learner.train(go_on, ignore)
    learner.load(learner.weights().copy())
    kept = any(name.startswith("optimiser") for name in learner.state())
    assert kept == (after_merge == "keep")


def test_hooks_of_the_method_are_called() -> None:
    seen: list[Any] = []

    class Nosy(Method):
        def build(self, model: Any) -> Any:
            seen.append("build")
            return model

        def transform(self, sample: Any) -> Any:
            seen.append("transform")
            return sample

        def loss(self, loss: Any, model: Any, anchor: Any) -> Any:
            seen.append(None if anchor is None else anchor.digest)
            return loss * 2

    learner = TorchLearner(Regression(), Nosy(), 0, 7)
    learner.train(go_on, ignore)
    assert seen == ["build", *["transform", None] * 6]
    merged = learner.weights().copy()
    learner.load(merged)
    seen.clear()
    learner.train(go_on, ignore)
    assert seen == ["transform", merged.digest] * 6
    again = TorchLearner(Regression(), Nosy(), 0, 7)
    again.load(learner.weights())
    again.restore(learner.state())
    seen.clear()
    again.train(go_on, ignore)
    assert seen == ["transform", merged.digest] * 6


def test_diverged_training_says_so_and_recovers_with_other_weights() -> None:
    learner = TorchLearner(Regression(), Method(), 0, 7, "keep")
    learner.train(go_on, ignore)
    good, poisoned = learner.weights().copy(), learner.weights().copy()
    poisoned.view("6.weight")[...] = 1e30
    learner.load(poisoned)
    with pytest.raises(Diverged, match=r"training diverged: .* task\.lr"):
        learner.train(go_on, ignore)
    learner.load(good)
    report = learner.train(go_on, ignore)
    assert (report.steps, report.complete) == (6, True)
    assert np.isfinite(learner.weights().view("0.weight")).all()


def test_bfloat16_is_the_arithmetic_not_the_weights() -> None:
    seen: list[torch.dtype] = []

    class Looking(Regression):
        def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
            inside = model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
            outputs = model(batch[0])
            inside.remove()
            seen.append(outputs.dtype)
            return (outputs - batch[1]).square().mean()

    def trained(precision: Any, task: Regression) -> TorchLearner:
        learner = TorchLearner(task, Method(), 0, 7, precision=precision)
        learner.train(go_on, ignore)
        return learner

    half, full = trained("bfloat16", Looking()), trained("float32", Regression())
    assert set(seen[::2]) == {torch.bfloat16}
    assert set(seen[1::2]) == {torch.float32}, "what leaves the network"
    assert half.schema.digest == full.schema.digest
    ours, theirs = half.weights().view("0.weight"), full.weights().view("0.weight")
    assert ours.dtype == np.float32
    assert not np.array_equal(ours, theirs)
    assert np.allclose(ours, theirs, atol=0.1)
    seen.clear()
    assert half.evaluate()["fit"] == pytest.approx(full.evaluate()["fit"], rel=0.2)
    assert torch.bfloat16 in seen, "inference too"


def test_a_checkpoint_in_bfloat16_continues_to_the_bit() -> None:
    whole, before, after = (TorchLearner(Regression(), Method(), 0, 7, precision="bfloat16") for _ in range(3))
    whole.train(go_on, ignore)
    done: list[int] = []
    before.train(lambda: len(done) == 2, lambda step, steps: done.append(step))
    after.load(before.weights())
    after.restore(before.state())
    after.train(go_on, ignore)
    assert after.weights().digest == whole.weights().digest


def test_metrics_are_means_over_cases() -> None:
    learner = TorchLearner(Regression(), Method(), 0, 7)
    values = [p.metrics["fit"] for p in learner.predict("validation")]
    assert learner.evaluate() == {"fit": pytest.approx(sum(values) / 2)}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @staticmethod
        def open_task(options: dict[str, Any], data: Path, device: str, where: str, split: Path | None) -> Regression:
            return Regression()

    monkeypatch.setattr(plugins, "load", lambda kind, name: Plugin)


def federation(folder: Path, **start: Any) -> Federation:
    (folder / "federation.toml").touch()
    return Federation(format=1, id="federation-x", task={"kind": "regression"}, start=start)


def test_a_learner_opens_at_the_agreed_start(plugin: None, tmp_path: Path) -> None:
    peer = Peer(name="lab-a", threads=1)
    learner = open_learner(federation(tmp_path, seed=3), peer, tmp_path, Method())
    assert isinstance(learner, Learner)
    digest = learner.weights().digest
    open_learner(federation(tmp_path, seed=3, digest=digest), Peer(name="lab-b", threads=1), tmp_path, Method())
    with pytest.raises(ConfigError, match=r"start.digest: the initial weights here are .* torch versions"):
        open_learner(federation(tmp_path, seed=4, digest=digest), peer, tmp_path, Method())

    learner.train(go_on, ignore)
    (tmp_path / "start.safetensors").write_bytes(b"".join(learner.weights().parts))
    other = open_learner(federation(tmp_path, weights="start.safetensors"), peer, tmp_path, Method())
    assert other.weights().digest == learner.weights().digest


def test_a_file_of_another_network_is_refused(plugin: None, tmp_path: Path) -> None:
    peer = Peer(name="lab-a", threads=1)
    learner = open_learner(federation(tmp_path), peer, tmp_path, Method())
    whole, path = b"".join(learner.weights().parts), tmp_path / "w.safetensors"
    with pytest.raises(ConfigError, match="not readable"):
        read_weights(path, learner.schema)
    for damaged, said in [(b"\0" + whole, "other tensors"), (whole[:-1], "size"), (whole + b"\0", "size")]:
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=said):
            read_weights(path, learner.schema)


def test_safetensors_files_of_the_library_are_read(plugin: None, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = Regression().network(5)
    save_file(network.state_dict(), tmp_path / "start.safetensors")
    start = federation(tmp_path, weights="start.safetensors")
    learner = open_learner(start, Peer(name="lab-a", threads=1), tmp_path, Method())
    assert np.array_equal(learner.weights().view("0.weight"), network.state_dict()["0.weight"].numpy())


def test_a_device_that_is_not_there_is_refused(plugin: None, tmp_path: Path) -> None:
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match=f"device: {absent} is not available"):
        open_learner(federation(tmp_path), Peer(name="lab-a", device=absent), tmp_path, Method())


def test_the_precision_of_a_device(plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(**peer: Any) -> str:
        given = Peer(name="lab-a", threads=1, device="cpu", **peer)
        return open_learner(federation(tmp_path), given, tmp_path, Method()).precision

    assert (opened(), opened(precision="float32"), opened(precision="bfloat16")) == ("float32", "float32", "bfloat16")
    for able, said in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert _precision(Peer(name="lab-a"), "cuda:1", tmp_path) == said
    with pytest.raises(ConfigError, match="precision: this GPU has no bfloat16"):
        _precision(Peer(name="lab-a", precision="bfloat16"), "cuda", tmp_path)


def test_labs_draw_different_batches_and_the_same_again(tmp_path: Path) -> None:
    ours = federation(tmp_path)
    assert lab_seed(ours, "lab-a") == lab_seed(ours, "lab-a") != lab_seed(ours, "lab-b")


def test_cores_are_shared_with_the_peers_on_this_host(
    plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braintorrent.learning.opening.cores", lambda: 9)
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    for name in ("lab-a", "lab-b", "lab-c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "peer.toml").touch()
    for threads in ("auto", 2):
        open_learner(federation(tmp_path), Peer(name="lab-a", threads=threads), tmp_path / "lab-a", Method())
    assert given == [3, 2]
