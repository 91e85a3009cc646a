"""A process that computes begins anew, once and as the same one, with what the C library is told before Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from braintorrent.cli._pages import MALLOC, SMALL_OBJECTS, with_large_pages

SCRIPT = Path(sys.executable).with_name("braintorrent")
SETTINGS = MALLOC | SMALL_OBJECTS
CODE = """
from pathlib import Path
from braintorrent.cli._pages import MALLOC, SMALL_OBJECTS, with_large_pages
print("begins", flush=True)
with_large_pages(MALLOC, SMALL_OBJECTS)
print(Path("/proc/self/environ").read_bytes().replace(b"\\0", b"\\n").decode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunables")
@pytest.mark.parametrize(
    ("given", "begins"),
    [({}, 2), ({"PYTHONMALLOC": "pymalloc"}, 2), ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, 2), (SETTINGS, 1)],
    ids=["nothing", "one", "another", "all"],
)
def test_it_begins_with_them_and_what_a_person_chose_stays(given, begins):
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "it"], stdout=subprocess.PIPE, text=True, env=inherited | given
    )
    lines = process.communicate(timeout=30)[0].splitlines()
    assert (process.returncode, lines.count("begins")) == (0, begins)
    assert {f"{name}={value}" for name, value in (SETTINGS | given).items()} <= set(lines)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunables")
@pytest.mark.parametrize(
    "begun", [[sys.executable, "-X", "utf8", "-m", "braintorrent"], [str(SCRIPT)]], ids=["-m", "script"]
)
def test_what_was_typed_is_what_it_does(begun, tmp_path):
    inherited = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [*begun, "run", str(tmp_path)], capture_output=True, text=True, check=False, timeout=30, env=inherited
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"braintorrent: {tmp_path}")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's tunables")
def test_it_tries_once_whatever_cleans_its_environment_and_goes_on_where_nothing_may_be_executed(monkeypatch):
    tried = []

    def declined(*command):
        tried.append(command)
        raise PermissionError

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(os, "execv", declined)
    for _ in range(3):
        with_large_pages({"NOT_THERE_WHEN_IT_BEGAN": "1"})
    assert len(tried) == 1
