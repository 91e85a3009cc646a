"""Ctrl-C while a command is loading: where Python would swallow it, and where it is raised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from braintorrent.node.roster import Roster
from braintorrent.storage import StatePaths

# In a callback of a weak reference the error is printed and forgotten, as it is in much of what packages bring.
SWALLOWS = """
import os, signal, weakref
class Gone: pass
gone = Gone()
kept = weakref.ref(gone, lambda _: os.kill(os.getpid(), signal.SIGINT))
del gone
"""


@pytest.fixture
def interrupted(tmp_path):
    """braintorrent with arguments, interrupted in the middle of the import of a package; its exit code and words."""

    def run(package: str, *arguments: object) -> tuple[int, str]:
        place = tmp_path / "packages"
        place.mkdir()
        (place / f"{package}.py").write_text(
            f"{SWALLOWS}\nimport sys, importlib\nsys.path.remove({str(place)!r})\n"
            f"del sys.modules[{package!r}]\nsys.modules[{package!r}] = importlib.import_module({package!r})\n"
        )
        path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "braintorrent", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": path}
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_it_is_not_lost_inside_of_an_import(interrupted, federate):
    labs = federate("lab-a")  # it has no stop rule
    code, said = interrupted("blake3", "run", labs.folders["lab-a"])
    assert "ignored" not in said
    assert "Traceback" not in said
    assert (code, said.splitlines()[-1]) in ((130, "braintorrent: stopped"), (0, "lab-a: stopped"))


def test_a_second_time_ends_it_at_once(tmp_path, federate):
    labs = federate("lab-a")
    (tmp_path / "blake3.py").write_text("import time\nprint('importing', flush=True)\nwhile True: time.sleep(0.01)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "braintorrent", "run", str(labs.folders["lab-a"])], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as run:  # fmt: skip
        lines = iter(run.stdout.readline, b"")
        assert b"importing\n" in lines
        run.send_signal(signal.SIGINT)
        assert b"stopping once this is loaded; once more to end at once\n" in lines
        time.sleep(0.1)
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        assert run.wait(10) == 130


def test_it_stays_ignored_where_it_was(federate):
    labs = federate("lab-a", stop={"versions": 1}, timing={"alone_after": 0.5, "linger": 0.1})
    with subprocess.Popen(
        [sys.executable, "-m", "braintorrent", "run", str(labs.folders["lab-a"])], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as run:  # fmt: skip
        while run.poll() is None and not labs.status("lab-a"):
            run.send_signal(signal.SIGINT)
            time.sleep(0.02)
        said, _ = run.communicate(timeout=30)
    assert run.returncode == 0, said


@pytest.mark.parametrize("seconds", [0.2, 0.5])
def test_launch_is_stopped_while_its_labs_are_loading(federate, seconds):
    labs = federate("lab-a", "lab-b")
    command = [sys.executable, "-m", "braintorrent", "launch", str(labs.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as launch:
        outputs = [folder / "state" / "log" / "terminal.log" for folder in labs.folders.values()]
        while not all(output.exists() for output in outputs):
            time.sleep(0.01)
        time.sleep(seconds)
        launch.send_signal(signal.SIGINT)
        shown, _ = launch.communicate(timeout=40)
    assert launch.returncode == 0, shown
    assert shown.decode().splitlines()[-1] == "all stopped; the next launch goes on"
    for folder in labs.folders.values():
        assert not labs.status(folder.name)


def test_who_runs_already_keeps_its_roster(federate, cli):
    labs = federate("lab-a", "lab-b", acquainted=False)
    labs.start("lab-b")
    labs.until(lambda: labs.status("lab-b"))
    done = cli("launch", labs.root, check=False)
    assert done.returncode == 2
    assert f"{labs.folders['lab-b']}: in use by process {labs.process('lab-b').pid}; stop it" in done.stderr
    for folder in labs.folders.values():
        assert Roster(StatePaths(folder).roster).ids == frozenset()
