"""Two labs on two machines that have never met: network namespaces with addresses of their own, joined by a bridge."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from braintorrent.experiments.real_lan import Lan
from braintorrent.storage import Ledger, StatePaths

TASK = {"kind": "standin", "size": 2000, "steps": 5, "seconds": 0.2}
BUDGET = 60.0  # seconds from nothing to the first merge, one training step aside


@pytest.fixture
def machine(lan: Lan) -> Callable[[str], list[str]]:
    """machine("192.0.2.1"): the command that runs braintorrent on a new machine of that address."""
    return lambda address: [*lan.host(address), sys.executable, "-m", "braintorrent"]


def merged(folder: Path, log: Path, by: float) -> float:
    """When the lab in `folder` first merged another's model; fails with what it said if not until `by`."""
    paths = StatePaths(folder)
    while time.monotonic() < by:
        if paths.control.exists():  # its node runs, so the ledger has been made
            with Ledger(paths.ledger, read_only=True) as ledger:
                if any(entry.kind == "merged" for entry in ledger.chain()):
                    return time.monotonic()
        time.sleep(0.1)
    pytest.fail(f"{folder.name} has not merged\n{log.read_text()}")


def test_from_nothing_to_the_first_merge_in_two_commands(machine, tmp_path, record_property):
    on_a, on_c = machine("192.0.2.1"), machine("192.0.2.3")
    a, c, scans = tmp_path / "a" / "lab-a", tmp_path / "c" / "lab-c", tmp_path / "scans"
    a.mkdir(parents=True), scans.mkdir()
    (a / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "namespaces-0001", "task": TASK}))
    timing = {"ask_every": 0.5, "alone_after": 1.0}
    (a / "peer.toml").write_text(tomli_w.dumps({"name": "lab-a", "listen": "0.0.0.0:47100", "timing": timing}))
    logs = [(tmp_path / f"{name}.log").open("wb") for name in "ac"]
    running = [subprocess.Popen([*on_a, "run", a], stdout=logs[0], stderr=subprocess.STDOUT)]
    try:
        deadline = time.monotonic() + 30
        while not (a / "state/control.json").exists():
            assert time.monotonic() < deadline, (tmp_path / "a.log").read_text()
            time.sleep(0.1)
        began = time.monotonic()
        code = subprocess.run(
            [*on_a, "invite", "lab-c", "-C", a], check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()
        join = [*on_c, "join", code, c, "--data", scans, "--yes", "--run"]
        running.append(subprocess.Popen(join, stdout=logs[1], stderr=subprocess.STDOUT))
        seconds = merged(c, tmp_path / "c.log", began + BUDGET) - began
        merged(a, tmp_path / "a.log", began + BUDGET)
    finally:
        for process in running:
            process.terminate()
        ends = [process.wait(20) for process in running]
        for log in logs:
            log.close()
    words = (tmp_path / "c.log").read_text()
    assert ends == [0, 0], words
    record_property("seconds", round(seconds, 1))
    print(f"joined and merged in {seconds:.1f} s")
    assert "192.0.2.3:47100" in words, "it listens at its own machine's address"
