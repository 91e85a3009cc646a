"""From a folder of scans to labs that merge, as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from braintorrent.cli import cli as braintorrent
from braintorrent.config import load_federation, load_peer
from braintorrent.storage import Ledger, StatePaths

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Eight scans of a bright cube."""
    rng = np.random.default_rng(0)
    for number in range(8):
        label = np.zeros((16, 16, 16), np.uint8)
        label[4 : 8 + number % 3, 4:10, 4:10] = 1
        arrays = {"images": (100 * label + rng.normal(50, 10, label.shape)).astype(np.float32), "labels": label}
        for kind, array in arrays.items():
            path = tmp_path / "scans" / kind / f"patient-{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return tmp_path / "scans"


def typed(*arguments: object) -> str:
    """What it says in this process: one of its own imports torch for longer than it works."""
    return CliRunner().invoke(braintorrent, [str(word) for word in arguments], catch_exceptions=False).stdout


def test_split_and_launch(cli: Cli, scans: Path, tmp_path: Path) -> None:
    root = tmp_path / "labs"
    shown = json.loads(typed("split", scans, "--labs", 2, "--by", "label", "--versions", 1, "-o", root, "--json"))
    assert [lab["name"] for lab in shown["labs"]] == ["lab-a", "lab-b"]
    assert all((lab["training"], lab["validation"], lab["test"]) == (2, 1, 1) for lab in shown["labs"])
    assert shown["labs"][0]["labels"]["label-1"] < shown["labs"][1]["labels"]["label-1"]
    peer = load_peer(root / "lab-a")
    assert (peer.timing.cadence, peer.stop.versions, peer.listen) == ("poisson", 1, "127.0.0.1:0")
    refused = cli("split", scans, "--labs", 2, "-o", root, check=False)
    assert refused.returncode == 2
    assert "nothing is overwritten" in refused.stderr

    for name in ("lab-a", "lab-b"):  # the test needs no more than a few steps
        path = root / name / "peer.toml"
        path.write_text(path.read_text().replace("ask_every = 1.0", "ask_every = 0.3"))
    federation = root / "federation.toml"
    federation.write_text(federation.read_text().replace("steps = 12", "steps = 2"))
    ended = json.loads(cli("launch", root, "--json").stdout)
    assert ended["exit"] == {"lab-a": 0, "lab-b": 0}
    assert all(status["versions"] == 1 for status in ended["peers"].values())
    for name in ("lab-a", "lab-b"):
        with Ledger(StatePaths(root / name).ledger, read_only=True) as ledger:
            assert ledger.merges()
    models = {(StatePaths(root / name).models / "merged.safetensors").read_bytes() for name in ("lab-a", "lab-b")}
    assert len(models) == 1


def test_new_says_what_it_chose_and_what_comes_next(cli: Cli, scans: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lab-a"
    shown = typed("new", folder, "--from", scans, "--name", "lab-a")
    assert "task.patch" in shown
    for verb in ("check", "run", "invite", "join"):
        assert f"braintorrent {verb}" in shown
    federation = load_federation(folder / "federation.toml")
    joined = json.loads(
        typed("new", tmp_path / "lab-b", "--from", scans, "--federation", folder / "federation.toml", "--json")
    )
    assert joined["choices"] == []
    assert joined["listen"] == "0.0.0.0:47101"
    assert load_federation(tmp_path / "lab-b" / "federation.toml") == federation
    (scans / "images" / "patient-3.nii.gz").write_bytes(b"")
    refused = cli("new", tmp_path / "lab-c", "--from", scans, check=False)
    assert refused.returncode == 2
    assert "file 4" in refused.stderr
    assert "patient" not in refused.stderr


def test_a_demo_refuses_what_it_cannot_do(cli: Cli) -> None:
    refused = cli("demo", "--by", "size", check=False)
    assert refused.returncode == 2
    assert "--data" in refused.stderr
    assert "whole numbers" in cli("demo", "--seeds", "a,b", check=False).stderr
