"""The scene: a victim that runs, an honest neighbour that trains with it, and what can be seen of both from outside."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from braintorrent.experiments.processes import introduce
from braintorrent.network.client import Client
from braintorrent.network.wire import Hello
from braintorrent.node.control import read_status
from braintorrent.node.lab import Lab
from braintorrent.node.roster import Member, Roster, encode_roster
from braintorrent.protocol.messages import AskMessage, TellMessage
from braintorrent.records import Identity, decode_record, digest
from braintorrent.storage import Ledger, StatePaths, write_atomically

FEDERATION = "testing-attacks"
TASK = {"kind": "standin", "size": 300_000, "steps": 3, "seconds": 0.25, "samples": 10}
TIMING = {"ask_every": 0.3, "alone_after": 5.0, "ask_deadline": 1.5, "linger": 30.0}
VICTIM = Path(__file__).parent.parent / "victim.py"


@dataclass
class Scene:
    """Two labs below `root`: the victim, and a neighbour that is as honest as it is.

    witness: an honest member that only asks. memory: bytes the victim may take while it is attacked.
    """

    root: Path
    victim: Path
    neighbour: Path
    lab: Lab  # a third one that never runs: its agreement and learner are everyone's
    witness: Identity
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    memory: int = 0

    @classmethod
    def set(cls, root: Path, **peer: Any) -> Scene:
        """Make the folders, with further `peer` options for the victim. Nothing runs yet."""
        (root / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": FEDERATION, "task": TASK}))
        folders = [root / name for name in ("victim", "neighbour", "pattern")]
        for folder in folders:
            folder.mkdir()
            options = {"name": folder.name, "listen": "127.0.0.1:0", "discovery": False, "timing": TIMING}
            own = peer if folder.name == "victim" else {}
            (folder / "peer.toml").write_text(tomli_w.dumps({**options, **own}))
        introduce(folders[:2])
        return cls(root, folders[0], folders[1], Lab.open(folders[2]), Identity.create())

    def admit(self, peers: dict[str, str]) -> None:
        """Put peer ids on the victim's roster, under these names, all in one go before it runs."""
        paths = StatePaths(self.victim)
        members = {peer: Member(name=name, since=time.time()) for peer, name in peers.items()}
        content = encode_roster(Roster(paths.roster).members | members, {})
        with Ledger(paths.ledger, identity=self.identity) as ledger:
            ledger.record("roster", {"action": "trusted", "peer": "", "name": "", "why": "", "roster": digest(content)})
        write_atomically(paths.roster, content, mode=0o600)

    def start(self) -> None:
        """Run both; return once the victim has merged the neighbour's model."""
        for folder in (self.victim, self.neighbour):
            output = StatePaths(folder).log / "terminal.log"
            output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with output.open("ab") as file:
                command = [sys.executable, str(VICTIM), "run", str(folder)]
                environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
                self.processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
            if folder == self.victim:
                self._await(lambda: self.status())
                hint = {"peers": [self.status()["listen"]]}
                path = self.neighbour / "peer.toml"
                path.write_text(path.read_text().replace("discovery", f'peers = ["{hint["peers"][0]}"]\ndiscovery'))
        self._await(lambda: self.status()["versions"] > 1 and self.merged().get(self.status()["peers"][-1]["id"]))
        self.memory = self.resident() + (96 << 20)

    def end(self) -> None:
        """Stop both; idempotent."""
        self.lab.state.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _await(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.words()
            assert all(process.poll() is None for process in self.processes), self.words()
            time.sleep(0.1)

    # ------------------------------------------------------------- what can be seen of the victim

    @property
    def id(self) -> str:
        """The victim's peer id."""
        return self.identity.id

    @property
    def identity(self) -> Identity:
        """The victim's key; only its public half is used."""
        return Identity.load(StatePaths(self.victim).key)

    @cached_property
    def address(self) -> tuple[str, int]:
        """Where the victim listens; the same as long as it runs."""
        host, port = self.status()["listen"].rsplit(":", 1)
        return host, int(port)

    def status(self) -> dict[str, Any]:
        """What it says of itself; nothing at all if it does not answer."""
        return read_status(self.victim) or {}

    def entry(self, peer: str) -> dict[str, Any]:
        """Its line about a peer."""
        return next((p for p in self.status().get("peers", []) if p["id"] == peer), {})

    def shown(self, peer: str) -> list[str]:
        """Its line about a peer as "name field: value", without the fields that say nothing."""
        entry = self.entry(peer)
        return [f"{entry['name']} {field}: {_plain(value)}" for field, value in entry.items() if value]

    def notes(self) -> set[str]:
        """Its notes, and what waits for a person, in words."""
        status = self.status()
        notes = {f"{key}: {text}" for key, text in status["notes"].items()}
        return notes | {" ".join(map(str, each.values())) for each in status["advice"]}

    def words(self) -> str:
        """All it has logged in this life."""
        return (StatePaths(self.victim).log / "terminal.log").read_text(errors="replace")

    def running(self) -> bool:
        """Whether its process is there."""
        return self.processes[0].poll() is None

    def resident(self) -> int:
        """Bytes of memory it takes now."""
        return _memory(self.processes[0].pid, "VmRSS")

    def peak(self) -> int:
        """The most it took since `forget_peak`."""
        return _memory(self.processes[0].pid, "VmHWM")

    def forget_peak(self) -> None:
        """Measure the peak from now on."""
        Path(f"/proc/{self.processes[0].pid}/clear_refs").write_text("5")

    def merged(self) -> dict[str, float]:
        """Author -> its largest weight in any merge of the victim."""
        largest: dict[str, float] = {}
        with Ledger(StatePaths(self.victim).ledger, read_only=True) as ledger:
            for _, merge in ledger.merges():
                for author, part in merge.included.items():
                    largest[author] = max(largest.get(author, 0.0), part.weight)
        return largest

    def hello(self, name: str = "honest", **changes: Any) -> Hello:
        """What an honest member would say."""
        values = {"agreement": self.lab.agreement, "clock_ms": int(time.time() * 1000), **changes}
        return Hello(name, values.pop("federation", FEDERATION), **values)

    async def ask(self, holds: dict[str, Any] | None = None) -> tuple[TellMessage, float]:
        """An honest peer calls from nothing and asks; the answer, and the seconds it took."""
        address = "{}:{}".format(*self.address)
        async with Client(self.witness, lambda peer: True) as client:
            began = time.monotonic()
            await client.hello(self.id, address, self.hello())
            tell = await client.ask(self.id, address, AskMessage(None, holds or {}), 5)
            return tell, time.monotonic() - began

    async def model(self) -> tuple[str, np.ndarray, set[str]]:
        """The victim's newest version, its parameters as anyone can fetch them, and the authors that went in."""
        address = "{}:{}".format(*self.address)
        async with Client(self.witness, lambda peer: True) as client:
            await client.hello(self.id, address, self.hello())
            told = (await client.ask(self.id, address, AskMessage(None, {}), 5)).announcements
            newest = next(a for a in told if a.author == self.id)
            record = decode_record(await client.fetch_small(self.id, address, newest.record, newest.record_size))
            schema = self.lab.learner.schema
            blob = await client.fetch_small(self.id, address, newest.content, schema.size)
        start = schema.slots["parameters"].start + len(schema.header)
        parameters = np.frombuffer(blob, np.float32, TASK["size"], start)
        return str(newest.version), parameters, {p.author for p in record.parents}


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Whether something that another process does became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


def _plain(value: Any) -> str:
    """The values in it, without braces and quotes."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _memory(process: int, row: str) -> int:
    found = re.search(rf"{row}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) << 10
