"""Short runs of the fuzzer over the corpus; ten million executions in `make soak`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHARE = {"wire": 15_000, "invite": 8_000, "safetensors": 6_000, "roster": 11_000}  # of executions, in `make test`
SOAK = 10_000_000

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed: pip install '.[fuzz]' (Linux)"
)


def fuzz(target: str, runs: int, folder: Path) -> str:
    """What libFuzzer says; a crash leaves its input in `folder`, and its traceback in the failure."""
    command = [sys.executable, str(HERE / "fuzz.py"), f"--target={target}", f"-runs={runs}", "-seed=1", "-timeout=10"]
    command += ["-rss_limit_mb=1024", "-max_len=4096", f"-artifact_prefix={folder}/", "-verbosity=1"]
    command += [str(folder / "found"), str(HERE / "corpus" / target)]
    # Through a shell that forks: a process begins with the peak memory of who started it, which libFuzzer reads.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    (folder / "found").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    return said


@pytest.mark.parametrize("target", SHARE)
def test_foreign_bytes_are_a_value_or_the_one_error_allowed(target, tmp_path):
    said = fuzz(target, SHARE[target], tmp_path)
    assert re.search(rf"Done {SHARE[target]} runs", said), said[-1000:]


@pytest.mark.soak
@pytest.mark.parametrize("target", SHARE)
def test_ten_million_executions(target, tmp_path):
    fuzz(target, SOAK * SHARE[target] // sum(SHARE.values()) + 1, tmp_path)


def test_the_corpus_has_an_honest_input_of_every_kind():
    """One that is stale would be refused at the door, and the fuzzer would learn nothing from it."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fuzz\n"
        "for target, inputs in fuzz.seeds().items():\n"
        "    kept = [(fuzz.CORPUS / target / f'honest-{i:02}').read_bytes() for i in range(len(inputs))]\n"
        "    same = kept == inputs or target == 'safetensors'\n"
        "    assert same, f'{target}: python tests/fuzz/fuzz.py --seeds'\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(HERE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
