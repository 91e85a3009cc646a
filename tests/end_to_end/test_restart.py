"""Ending on purpose loses nothing; several peers are launched and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from braintorrent.node.control import last_status

ALL = ("lab-a", "lab-b", "lab-c")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_inside_a_version_goes_on_from_the_same_step(federate, sign):
    alone = {"ask_every": 0.3, "alone_after": 0.0, "linger": 1.0}
    labs = federate("lab-a", task={"steps": 100, "seconds": 10.0}, timing=alone, stop={"versions": 1})
    labs.start()
    step = labs.until(lambda: (labs.status("lab-a") or {"activity": {"done": 0}})["activity"]["done"] >= 5)
    labs.process("lab-a").send_signal(sign)
    assert labs.process("lab-a").wait(10) == 0
    assert labs.versions("lab-a") == 0
    labs.start()
    step = labs.until(lambda: (labs.status("lab-a") or {"activity": {"done": 0}})["activity"]["done"])
    assert step >= 5
    assert "from its checkpoint" in labs.words("lab-a")


def test_a_finished_peer_stays_finished_and_a_raised_stop_rule_goes_on(federate, cli):
    alone = {"ask_every": 0.3, "alone_after": 0.0, "linger": 1.0}
    labs = federate("lab-a", timing=alone, stop={"versions": 2})
    for _ in range(2):
        labs.start()
        assert labs.process("lab-a").wait(20) == 0
        assert last_status(labs.folders["lab-a"])["versions"] == 2
        assert "ended cleanly at version 2 (final)" in cli("status", labs.folders["lab-a"], check=False).stdout
        assert "models:     latest (score 0." in labs.words("lab-a")
    toml = labs.folders["lab-a"] / "peer.toml"
    toml.write_text(toml.read_text().replace("versions = 2", "versions = 3"))
    labs.start()
    assert labs.process("lab-a").wait(20) == 0
    assert last_status(labs.folders["lab-a"])["versions"] == 3


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_launch_runs_all_and_a_signal_ends_all(federate, sign):
    labs = federate(*ALL, acquainted=False)
    command = [sys.executable, "-m", "braintorrent", "launch", str(labs.root)]
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    ) as launch:  # fmt: skip
        try:
            labs.until(lambda: all(labs.has_merged("lab-a", other) for other in ALL[1:]))
            labs.until(lambda: all(labs.versions(lab) >= 1 for lab in ALL))  # its first may be an adopted one
        finally:
            launch.send_signal(sign)
        shown, _ = launch.communicate(timeout=40)
    assert launch.returncode == 0, shown
    assert "all stopped; the next launch goes on" in shown
    for lab, folder in labs.folders.items():
        assert labs.status(lab) is None
        assert last_status(folder)["versions"] >= 1
