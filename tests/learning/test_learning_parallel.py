"""Two processes train as one does: steps, merges, checkpoints, divergence. And when one is gone, the other says so.

The processes are real: torchrun runs this very file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from braintorrent.contracts import Prediction
from braintorrent.errors import ConfigError, Diverged, LocalError
from braintorrent.learning.contract import Learner
from braintorrent.learning.learner import TorchLearner
from braintorrent.learning.opening import device_of
from braintorrent.learning.parallel import follow, join, lead
from braintorrent.methods import Method
from braintorrent.tasks.standin import Options, Standin
from braintorrent.weights import Weights

FATAL = 100  # the step at which process 1 falls over


class Unused(nn.Module):
    """A layer norm, and parameters that no loss depends on, as some of MONAI's networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.unused = nn.LayerNorm(8), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class Regression:
    """A contracts.Task of a few numbers, 16 a batch."""

    score, samples, steps = "fit", 5, 4

    def network(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), Unused(), nn.ReLU(), nn.Linear(8, 1))

    def batch(self, seed: int, step: int) -> Any:
        if step >= FATAL and os.environ.get("RANK") == "1":
            os._exit(3)
        inputs = torch.from_numpy(np.random.default_rng([seed, step]).standard_normal((16, 4), np.float32))
        return {"inputs": inputs, "outputs": [inputs.sum(1, keepdim=True)]}

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch["inputs"]) - batch["outputs"][0]).square().mean()

    def optimiser(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.05)

    def evaluate(self, model: nn.Module, part: str, *, arrays: bool = False) -> list[Prediction]:
        model.eval()
        with torch.inference_mode():
            return [Prediction("0", {"fit": -self.loss(model, self.batch(99, 0)).item()})]

    def summary(self, predictions: Any) -> dict[str, float]:
        return dict(predictions[0].metrics)


class Growing(Method):
    """Remembers how often it merged, and its loss follows from that."""

    merges = 1

    def loss(self, loss: Any, model: Any, anchor: Weights | None) -> Any:
        near = sum(p.square().sum() for p in model.parameters()) * 1e-3
        return loss * self.merges + (near if anchor is not None else 0)

    def state(self) -> dict[str, Any]:
        return {"merges": self.merges}

    def restore(self, state: Any) -> None:
        self.merges = state["merges"]


def fresh() -> TorchLearner:
    return TorchLearner(Regression(), Growing(), 0, 7, "keep")


def ignore(step: int, steps: int) -> None:
    pass


def life(learner: Learner) -> tuple[Weights, list[float]]:
    """What happens to a learner in a node: versions, a merge, a halt, a restart, a poisoned merge."""
    losses = [learner.train(lambda: False, ignore).loss]
    learner.evaluate()
    merged = learner.weights().copy()
    merged.view("0.weight")[...] *= 0.5
    learner.load(merged)
    learner.method.merges = 3  # type: ignore[attr-defined]
    done: list[int] = []
    assert not learner.train(lambda: len(done) == 2, lambda step, steps: done.append(step)).complete
    good, state = learner.weights().copy(), learner.state()
    losses.append(learner.train(lambda: False, ignore).loss)
    learner.load(good)
    learner.restore(state)
    losses.append(learner.train(lambda: False, ignore).loss)
    bad = good.copy()
    bad.view("3.weight")[...] = 1e30
    learner.load(bad)
    with pytest.raises(Diverged):
        learner.train(lambda: False, ignore)
    learner.load(good)
    losses.append(learner.train(lambda: False, ignore).loss)
    return learner.weights(), losses


def test_two_processes_train_as_one_does_and_one_alone_ends_with_a_word(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", __file__, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1, "torchrun's own code where a process failed"
    assert (tmp_path / "end").exists(), ended.stderr
    alone, losses = life(fresh())
    there = Weights(alone.schema)
    np.copyto(there.buffer, np.load(tmp_path / "weights.npy"))
    far = [spec.name for spec, values in there if not np.allclose(values, alone.view(spec.name), atol=1e-5)]
    assert all("unused" in name for name in far), far  # whose gradients of zero Adam has counted as steps
    assert np.load(tmp_path / "losses.npy") == pytest.approx(losses, rel=1e-4)
    said = (tmp_path / "end").read_text()
    assert (
        said
        == "a process of this lab is gone, so it ends; what was wrong stands above, and the last checkpoint is kept"
    )


def test_what_cannot_be_shared_out_is_refused_before_anyone_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"^f.toml: task.batch: 16 cannot be shared evenly by 3 processes"):
        lead(fresh(), "f.toml")
    with pytest.raises(ConfigError, match=r"^f.toml: task.kind: this one trains in one process only"):
        lead(Standin(Options(kind="standin"), 0, 0), "f.toml")


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    launched = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert [device_of(name, tmp_path) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert taken == [1, 1]
    with pytest.raises(ConfigError, match="device: cuda:0 is not for 2 processes here"):
        device_of("cuda:0", tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="of which there are 1"):
        device_of("auto", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto", tmp_path) == "cpu"


def one_of_two(folder: Path) -> None:
    if os.environ["RANK"] == "1":
        join()
        follow(fresh())
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's; the connection must say it by itself
    learner = lead(fresh(), "federation.toml")
    weights, losses = life(learner)
    np.save(folder / "weights.npy", weights.buffer)
    np.save(folder / "losses.npy", losses)
    learner.restore({**learner.state(), "step": np.array(FATAL)})
    try:
        learner.train(lambda: False, ignore)
    except LocalError as error:
        (folder / "end").write_text(str(error))
    learner.end()


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
