"""The wheel builds, installs elsewhere, and two peers run from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_installs_elsewhere_and_two_peers_run_from_it(federate, tmp_path, monkeypatch):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.chdir(tmp_path)  # not the checkout, whose package would come first

    where = subprocess.run(
        [sys.executable, "-c", "import braintorrent; print(braintorrent.__file__)"], capture_output=True, text=True
    )
    assert where.stdout.startswith(str(site))
    shown = subprocess.run([sys.executable, "-m", "braintorrent", "--help"], capture_output=True, text=True)
    assert "braintorrent demo" in shown.stdout

    labs = federate("lab-a", "lab-b", stop={"versions": 3})
    labs.start()
    for lab in labs.folders:
        assert labs.process(lab).wait(30) == 0, labs.words(lab)
        assert labs.last(lab)["merges"] >= 1
