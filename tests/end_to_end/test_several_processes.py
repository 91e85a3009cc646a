"""A lab under torchrun: one command, one node, and the weights that a single process would have trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from braintorrent.config import load_federation, load_peer
from braintorrent.learning import open_learner
from braintorrent.methods import Method
from braintorrent.storage import Ledger, StatePaths
from braintorrent.weights import Weights

# A task of its own, as an installed package would bring it: monai takes long to import in every process. SGD, because
# Adam makes steps of full size out of the rounding of gradients that are zero, as biases before a norm have.
PLUGIN = """
import torch
from torch import nn

class Stripes:
    score, samples, steps = "fit", 4, 3

    def network(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def batch(self, seed, step):
        image = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1000 * seed + step))
        return {"image": image, "label": (image[:, 0].cumsum(-1) > 0).long()}

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["image"]), batch["label"])

    def optimiser(self, parameters):
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

    def evaluate(self, model, part, *, arrays=False):
        return []

    def summary(self, predictions):
        return {}

def open_task(*arguments):
    return Stripes()
"""
SECONDS = 90


@pytest.fixture
def lab(federate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab that trains until it is stopped."""
    (tmp_path / "stripes.py").write_text(PLUGIN)
    package = tmp_path / "stripes-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[braintorrent.tasks]\nstripes = stripes\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    timing = {"alone_after": 0.0, "linger": 0.0}
    labs = federate("lab-a", acquainted=False, timing=timing, discovery=False, device="cpu")
    content = {"format": 1, "id": "testing-0001", "task": {"kind": "stripes"}}
    (labs.root / "federation.toml").write_text(tomli_w.dumps(content))
    return labs.folders["lab-a"]


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "braintorrent", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.Popen(
        [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def stop_after(folder: Path, versions: int) -> None:
    peer = tomllib.loads((folder / "peer.toml").read_text())
    (folder / "peer.toml").write_text(tomli_w.dumps(peer | {"stop": {"versions": versions}}))


def published(folder: Path) -> tuple[int, bytes]:
    """(counter, blob) of the newest version."""
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        newest = ledger.newest()
    if newest is None:
        return 0, b""
    return newest.version.counter, next(StatePaths(folder).blobs.rglob(f"*{newest.content[2:]}")).read_bytes()


def test_a_lab_in_two_processes_stops_goes_on_and_trains_what_one_would(lab: Path) -> None:
    torchrun = start(lab)
    assert torchrun.stdout is not None
    assert any(line.startswith("listening:") for line in torchrun.stdout)
    torchrun.send_signal(signal.SIGINT)
    said, complained = torchrun.communicate(timeout=SECONDS)
    assert "lab-a: stopped" in said, complained
    assert "stopping at the next batch" in complained
    assert StatePaths(lab).checkpoint.exists()

    stop_after(lab, 2 + published(lab)[0])
    torchrun = start(lab)
    said, complained = torchrun.communicate(timeout=SECONDS)
    assert torchrun.returncode == 0, complained
    assert said.count("listening:") == said.count("lab-a: finished") == 1, "one node"
    counter, there = published(lab)
    assert counter >= 2
    alone = open_learner(load_federation(lab.parent / "federation.toml"), load_peer(lab), lab, Method())
    for _ in range(counter):
        alone.train(lambda: False, lambda step, steps: None)
    weights = Weights(alone.schema)
    np.copyto(weights.buffer, np.frombuffer(there[len(alone.schema.header) :], np.uint8))
    for spec, values in weights:
        assert np.allclose(values, alone.weights().view(spec.name), atol=1e-4), spec.name
