"""What the node tests share: labs of the stand-in task in this process, and a disk that is really full."""

import asyncio
import subprocess

import pytest
import tomli_w

from braintorrent.experiments.processes import introduce
from braintorrent.node.lab import Lab

TIMING = {"ask_every": 0.1, "alone_after": 3.0, "linger": 5.0}


@pytest.fixture
def folders(tmp_path):
    """folders("lab-a", "lab-b", rollback=True): peer folders of labs that trust each other."""

    def make(*names, task=None, **peer):
        standin = {"kind": "standin", "size": 200, "steps": 5, "seconds": 0.1, **(task or {})}
        (tmp_path / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "testing-node", "task": standin}))
        made = [tmp_path / name for name in names]
        for folder in made:
            folder.mkdir()
            content = {"name": folder.name, "listen": "127.0.0.1:0", "timing": TIMING, **peer}
            (folder / "peer.toml").write_text(tomli_w.dumps(content))
        introduce(made)
        return made

    return make


@pytest.fixture
def labs(folders):
    """The same, opened."""
    return lambda *names, **options: [Lab.open(folder) for folder in folders(*names, **options)]


@pytest.fixture
def until():
    """Wait for something to become true of a node of this process."""

    async def wait(condition):
        while True:
            if condition():
                return
            await asyncio.sleep(0.05)

    return wait


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
