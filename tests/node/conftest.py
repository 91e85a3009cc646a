"""What the node tests share: labs of the stand-in task in this process, and a disk that is really full."""

import asyncio
import shutil
import subprocess
from contextlib import AsyncExitStack

import pytest
import tomli_w

from braintorrent.experiments.processes import introduce
from braintorrent.node import finding, noticing
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node

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


@pytest.fixture(params=["4m"])
def small_disk(tmp_path, request):
    """A file system of 4 MiB, or of the size that a test asks for."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Two labs that trained, merged with each other, and ended."""
    root = tmp_path_factory.mktemp("ended")
    task = {"kind": "standin", "size": 200, "steps": 5, "seconds": 0.1}
    (root / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "testing-node", "task": task}))
    made = [root / "lab-a", root / "lab-b"]
    told = {"listen": "127.0.0.1:0", "timing": {"ask_every": 0.1, "alone_after": 3.0}, "stop": {"versions": 2}}

    def write(folder, **more):
        (folder / "peer.toml").write_text(tomli_w.dumps({"name": folder.name, **more, **told}))

    async def train():
        async with asyncio.timeout(30), Node(Lab.open(made[0])) as one:
            write(made[1], peers=[one.listening])
            async with Node(Lab.open(made[1])) as two:
                await asyncio.gather(one.finished(), two.finished())

    for folder in made:
        folder.mkdir()
        write(folder)
    introduce(made)
    asyncio.run(train())
    return root


@pytest.fixture
def stopped(ended, tmp_path):
    """Copies of them, to be spoilt."""
    shutil.copytree(ended, tmp_path / "labs")
    return tmp_path / "labs" / "lab-a", tmp_path / "labs" / "lab-b"


@pytest.fixture
async def run(monkeypatch):
    """Nodes of folders, running until the test ends, who look at their files often."""
    monkeypatch.setattr(finding, "ROSTER_EVERY", 0.2)
    monkeypatch.setattr(noticing, "NOTICES_EVERY", 0.2)
    async with asyncio.timeout(60), AsyncExitStack() as stack:

        async def start(*folders):
            return [await stack.enter_async_context(Node(Lab.open(folder))) for folder in folders]

        yield start
