"""The demo: four labs on this machine learn together, and are compared with what else one could have done.

Data, peer folders, one real process per lab, baselines, a report. Everything it makes lies in one folder.
"""

from __future__ import annotations

import secrets
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from braintorrent.config import load_federation, load_peer
from braintorrent.errors import ConfigError, LocalError
from braintorrent.experiments import report
from braintorrent.experiments.anatomy import make_labs
from braintorrent.experiments.baselines import Lab, compare, predict
from braintorrent.experiments.processes import Processes, introduce
from braintorrent.experiments.settings import brain_task, decathlon_task
from braintorrent.experiments.split import read, split
from braintorrent.learning import Learner
from braintorrent.learning.opening import cores
from braintorrent.node.lab import Lab as OpenLab
from braintorrent.node.lab import ensure_identity
from braintorrent.storage import Ledger, StatePaths

MARKER = ".braintorrent-demo"  # what a demo may delete, it made itself
VERSIONS = {"brain": 32, "decathlon": 14}
TIMING = {"ask_every": 1.0, "alone_after": 60.0, "linger": 300.0}
STEPS_TIMED = 4
NAMES = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Demo:
    """What to do and where. `data`: a Decathlon folder, or None for the built-in anatomy.

    The labs take turns as in Roy et al., section 2: each wakes on an exponential clock, so that who merges finds
    the others' newest models done. `continuous`: all train at once, merging models that are half a version old.
    """

    out: Path
    peers: int = 4
    data: Path | None = None
    versions: int | None = None
    seed: int = 0
    say: Callable[[str], None] = lambda text: None
    continuous: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def prepare(self) -> list[Path]:
        """Make data, peer folders and federation.toml; the peer folders."""
        _fresh(self.out)
        names = [f"lab-{NAMES[i % 26]}{i // 26 or ''}" for i in range(self.peers)]
        with self.timed("data"):
            if self.data is None:
                labs = make_labs(self.out / "data", names, self.seed, progress=self.say)
                task = brain_task()
            else:
                task = decathlon_task(self.data)
                labs = split(self.data, self.out / "data", names, self.seed)
        root = self.out / "peers"
        federation = {"format": 1, "id": f"demo-{secrets.token_hex(8)}", "task": task, "start": {"seed": self.seed}}
        root.mkdir()
        (root / "federation.toml").write_text(tomli_w.dumps(federation))
        folders = [self._peer(root / name, labs[name]) for name in names]
        introduce(folders)
        timing = TIMING | ({} if self.continuous else {"cadence": "poisson", "interval": _rest(folders)})
        for folder in folders:
            path = folder / "peer.toml"
            path.write_text(tomli_w.dumps(tomllib.loads(path.read_text()) | {"timing": timing}))
        return folders

    def _peer(self, folder: Path, data: Path) -> Path:
        folder.mkdir()
        versions = self.versions or VERSIONS["brain" if self.data is None else "decathlon"]
        peer = {
            "name": folder.name, "data": str(data.resolve()), "listen": "127.0.0.1:0", "stop": {"versions": versions},
        }  # fmt: skip
        (folder / "peer.toml").write_text(tomli_w.dumps(peer))
        return folder

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long a part took, for the report."""
        began = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - began, 1)

    def evaluate(
        self, folders: list[Path], peers: Processes, progress: Callable[[str, int, int], None]
    ) -> dict[str, Any]:
        """Train the baselines, compare, and write report.json and report.png."""
        trouble = [f"{name} ended with {code}" for name, code in peers.ended.items() if code]
        if trouble:
            raise LocalError(f"{'; '.join(trouble)}; see {folders[0].parent}/*/state/log/terminal.log")
        results = [_result(folder, peers) for folder in folders]
        finals = {
            row: {folder.name: StatePaths(folder).models / f"{model}.safetensors" for folder in folders}
            for row, model in (("own", "own"), ("braintorrent", "merged"))
        }
        labs = [Lab(r.name, folder, r.versions) for r, folder in zip(results, folders, strict=True)]
        with self.timed("baselines"):
            dice = compare(labs, finals, self.out / "baselines", progress)
        source = str(self.data) if self.data else "MNI152, deformed"
        found = report.build(source, self.seed, results, dice, self.seconds)
        report.write(found, self.out / "report.json")
        with self.timed("figure"):
            shown = predict(folders[0], finals["braintorrent"][folders[0].name])[0]
            labels = load_federation(folders[0].parent / "federation.toml").task["labels"]
            report.draw(self.out / "report.png", _curves(folders), shown, labels)
        return found


def _fresh(out: Path) -> None:
    """An empty folder for the demo; only what an earlier demo made is removed."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise ConfigError(f"{out}: not empty and not made by the demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _rest(folders: list[Path]) -> float:
    """Seconds a lab rests, so that on average as many are at work as half the cores, and none slows another down.

    What is wrong with a lab is said here, in one line, before processes start.
    """
    labs = [OpenLab.open(folder) for folder in folders]
    for lab in labs:
        lab.state.close()
    version = _seconds_per_version(labs[0].learner, labs[0].federation.task["steps"])
    return round(max(1.0, 2 * len(folders) / cores() - 1) * version, 2)


def _seconds_per_version(learner: Learner, steps: int) -> float:
    """Training and evaluation, estimated from a few real steps."""
    took: list[float] = []
    learner.train(lambda: len(took) == STEPS_TIMED, lambda step, steps: took.append(time.monotonic()))
    began = time.monotonic()
    learner.evaluate()
    return time.monotonic() - began + steps * (took[-1] - took[0]) / (len(took) - 1)


def _result(folder: Path, peers: Processes) -> report.PeerResult:
    """What one peer did, from its ledger."""
    _, cases = read(folder / load_peer(folder).data)
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        newest, traffic = ledger.newest(), ledger.traffic().values()
        return report.PeerResult(
            name=folder.name, id=ensure_identity(folder).id, train_cases=len(cases["training"]),
            test_cases=len(cases["test"]), versions=newest.version.counter if newest else 0,
            merges=len(ledger.merges()), bytes_in=sum(t[0] for t in traffic), bytes_out=sum(t[1] for t in traffic),
            exit=peers.ended[folder.name],
        )  # fmt: skip


def _curves(folders: list[Path]) -> dict[str, list[tuple[float, float]]]:
    """Peer -> (seconds since the first of all, Dice on its own validation cases after each version)."""
    measured = {}
    for folder in folders:
        with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
            found = [m for m in ledger.metrics() if m.stage == "own" and m.name == "dice"]
            measured[folder.name] = [(m.unix, m.value) for m in found if m.value is not None]
    start = min((points[0][0] for points in measured.values() if points), default=0.0)
    return {name: [(unix - start, value) for unix, value in points] for name, points in measured.items()}
