"""Memory, time, device, disk and clock, by the real learner on this machine; nothing is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.learning.learner import TorchLearner
from braintorrent.storage import StatePaths
from braintorrent.workbench import check_machine


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_version_is_measured_by_real_steps_and_nothing_is_written(lab: Any) -> None:
    before = tree(lab.folder)
    report = lab.check(quick=False)
    assert report.ready
    facts = report.facts
    assert facts["device"] in ("cpu", "cuda", "mps")
    assert 0 < facts["seconds_per_step"] <= facts["seconds_per_version"]
    assert facts["model_bytes"] > 0
    assert facts["memory_bytes"] > 50 * 2**20  # torch alone takes more
    assert json.loads(json.dumps(report.plain()))["ready"] is True
    assert tree(lab.folder) == before


def test_the_recorded_parts_are_the_ones_looked_at(lab: Any) -> None:
    lab.listing(training=[*lab.listed("training"), *lab.listed("validation")], validation=[])
    dealt = lab.check().facts["cases"]
    assert not StatePaths(lab.folder).split.exists()
    assert lab.check(quick=False).facts["cases"] == dealt
    assert not StatePaths(lab.folder).split.exists()


def test_too_little_memory(lab: Any, only: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_machine, "available_memory", lambda: 1 << 20)
    said = only(lab.check(quick=False), "warning", "memory").what
    assert said.startswith("a run needs about ")
    assert said.endswith("; 0.00 GiB are available")


def test_steps_that_fail(lab: Any, only: Any) -> None:
    lab.federation(task={"lr": 1e30, "steps": 8})
    assert only(lab.check(quick=False), "error", "steps").what.startswith("training diverged: loss ")


@pytest.mark.parametrize(
    ("said", "do"),
    [("CUDA out of memory. Tried ...\nmore", "a smaller task.patch or task.batch"), ("no such kernel", "")],
)
@pytest.mark.parametrize("when", ["train", "load"])
def test_memory_is_blamed_where_it_is_memory(
    lab: Any, only: Any, monkeypatch: pytest.MonkeyPatch, when: str, said: str, do: str
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError(said)

    if when == "train":
        monkeypatch.setattr(TorchLearner, "train", fails)
        found = only(lab.check(quick=False), "error", "steps")
        assert (found.what, found.do) == (f"a training step fails: {said.splitlines()[0]}", do)
    else:
        monkeypatch.setattr(TorchLearner, "__init__", fails)
        found = only(lab.check(quick=False), "error", "memory" if do else "learner")
        assert found.what == ("data and network do not fit into memory (RuntimeError)" if do else
                              f"data and network do not open: {said}")  # fmt: skip


def test_steps_wait_for_the_data(lab: Any) -> None:
    lab.image("training2").unlink()
    report = lab.check(quick=False)
    assert "seconds_per_step" not in report.facts
    assert [f.what for f in report.findings if f.kind == "steps"] == [
        "no training steps were tried: the data comes first"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there(lab: Any, only: Any) -> None:
    lab.peer(device="cuda")
    assert only(lab.check(), "error", "device").what.endswith(
        'device: cuda is not available here; "auto" takes what there is'
    )


def test_disk(lab: Any, only: Any) -> None:
    lab.peer(disk_gib=1e6)
    assert only(lab.check(), "warning", "disk").what.startswith("disk_gib allows 1e+06 GiB of models, ")
    lab.peer(disk_gib=1e-6)
    said = only(lab.check(quick=False), "error", "disk").what
    assert said.startswith("disk_gib = 1e-06 is less than the ")
    assert said.endswith("the models of 2 labs")


def test_a_clock_that_went_back(lab: Any, only: Any) -> None:
    future = time.time() + 3 * 86400
    os.utime(StatePaths(lab.folder).roster, (future, future))
    said = only(lab.check(), "warning", "clock").what
    assert said == "the clock is 3 days behind the newest thing in this peer's state"


def test_a_damaged_ledger(lab: Any, only: Any) -> None:
    StatePaths(lab.folder).ledger.write_bytes(b"no database" * 100)
    assert "ledger.sqlite: damaged" in only(lab.check(), "error", "ledger").what


def test_the_command_tells_ready_from_not_ready(lab: Any) -> None:
    good = CliRunner().invoke(cli, ["check", str(lab.folder), "--quick"])
    assert good.exit_code == 0, good.output
    assert good.output.splitlines()[-1].endswith("ready")
    lab.image("training2").unlink()
    bad = CliRunner().invoke(cli, ["check", str(lab.folder), "--quick"])
    assert bad.exit_code == 1
    assert bad.output.splitlines()[-1].startswith("1 error")
    said = json.loads(CliRunner().invoke(cli, ["check", str(lab.folder), "--quick", "--json"]).stdout)
    assert said["ready"] is False
    assert said["errors"] == 1
    assert [f["what"] for f in said["findings"] if f["level"] == "error"] == ["the image is missing"]


def test_a_folder_that_is_none_has_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "braintorrent", "check", str(tmp_path / "lab-x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no such folder" in done.stderr
