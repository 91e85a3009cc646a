"""Federations of real processes on this machine, with the stand-in task: small, quick, and nothing mocked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from braintorrent.errors import ConfigError
from braintorrent.experiments.processes import Processes, introduce
from braintorrent.experiments.real_lan import Lan
from braintorrent.node.control import last_status, read_status
from braintorrent.storage import Ledger, StatePaths

TIMING = {"ask_every": 0.3, "alone_after": 5.0, "linger": 30.0, "ask_deadline": 3.0}


@dataclass
class Federation:
    """Peer folders below `root`, and the processes that run them."""

    root: Path
    folders: dict[str, Path] = field(default_factory=dict)
    processes: Processes = field(default_factory=lambda: Processes([]))

    def start(self, *names: str) -> None:
        for name in names or self.folders:
            folder = self.folders[name]
            self.processes.names[folder] = name
            self.processes.last[name] = None
            self.processes.start(folder)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self.processes.running[self.folders[name]]

    def kill(self, name: str) -> None:
        self.process(name).kill()
        self.process(name).wait()

    def status(self, name: str) -> dict[str, Any] | None:
        return read_status(self.folders[name])

    def last(self, name: str) -> dict[str, Any]:
        found = last_status(self.folders[name])
        assert found is not None, self.words(name)
        return found

    def words(self, name: str) -> str:
        return self.processes.last_words(self.folders[name], 40)

    @contextlib.contextmanager
    def ledger(self, name: str) -> Iterator[Ledger]:
        with Ledger(StatePaths(self.folders[name]).ledger, read_only=True) as ledger:
            yield ledger

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait for something to become true; what the peers printed is in the failure."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.1)
        words = "\n".join(f"--- {name}\n{self.words(name)}" for name in self.folders)
        pytest.fail(f"not within {seconds} s\n{words}")

    def versions(self, name: str) -> int:
        found = self.status(name)
        return found["versions"] if found else 0

    def has_merged(self, name: str, other: str) -> bool:
        found = self.status(name)
        return bool(found) and any(p["name"] == other and p["merged"] for p in found["peers"])


@pytest.fixture
def federate(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Make a federation of stand-in labs: federate("lab-a", "lab-b", task={...}, stop={...})."""
    made: list[Federation] = []

    def make(*names: str, task: dict[str, Any] | None = None, acquainted: bool = True, **peer: Any) -> Federation:
        root = tmp_path / f"federation-{len(made)}"
        root.mkdir()
        standin = {"kind": "standin", "size": 2000, "steps": 5, "seconds": 0.2, **(task or {})}
        (root / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "testing-0001", "task": standin}))
        federation = Federation(root)
        for name in names:
            folder = federation.folders[name] = root / name
            folder.mkdir()
            content = {"name": name, "listen": "127.0.0.1:0", "timing": TIMING, **peer}
            (folder / "peer.toml").write_text(tomli_w.dumps(content))
        if acquainted:
            introduce(federation.folders.values())
        made.append(federation)
        return federation

    yield make
    for federation in made:
        for process in federation.processes.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def lan() -> Iterator[Lan]:
    """Machines of their own on a bridge; skips where they cannot be made."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Lan())
        except ConfigError as error:
            pytest.skip(str(error))
        yield made


def braintorrent(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line, as a user types it."""
    command = [sys.executable, "-m", "braintorrent", *map(str, arguments)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60, env=environment)


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    return braintorrent
