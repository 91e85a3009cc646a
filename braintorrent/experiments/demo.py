"""The demo: four labs on this machine learn together, and are compared with what else one could have done.

Data, peer folders, one real process per lab, baselines, a report. Everything it makes lies in one folder.
"""

from __future__ import annotations

import secrets
import shutil
import time
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
from braintorrent.experiments.dealing import Rule
from braintorrent.experiments.labs import Plan, lay_out, write_peers
from braintorrent.experiments.processes import Processes, introduce
from braintorrent.experiments.settings import BRAIN_VERSIONS, brain_task
from braintorrent.experiments.split import counts
from braintorrent.node.lab import Lab as OpenLab
from braintorrent.node.lab import ensure_identity
from braintorrent.storage import Ledger, StatePaths

MARKER = ".braintorrent-demo"  # what a demo may delete, it made itself
SHOWN = 3  # cases in the picture


@dataclass
class Demo:
    """What to do and where. `data`: a lab's data in any layout, or None for the built-in anatomy; by: see dealing."""

    out: Path
    peers: int = 4
    data: Path | None = None
    versions: int | None = None
    seed: int = 0
    say: Callable[[str], None] = lambda text: None
    continuous: bool = False
    by: Rule = "even"
    seconds: dict[str, float] = field(default_factory=dict)

    def prepare(self) -> list[Path]:
        """Make data, peer folders and federation.toml; the peer folders. What is wrong with a lab is said here."""
        if self.data is not None and self.data.resolve().is_relative_to(self.out.resolve()):
            raise ConfigError(f"{self.data}: lies in --out {self.out}, which is made anew; choose another --out")
        _fresh(self.out)
        plan = Plan(self.peers, self.by, self.seed, self.versions, self.continuous)
        root = self.out / "peers"
        with self.timed("data"):
            if self.data is None:
                self._brains(root, plan)
            else:
                lay_out(self.data, root, plan)
        folders = [root / name for name in plan.names]
        introduce(folders)
        for folder in folders if self.data is not None else ():  # reading all scans takes a while; its own are right
            OpenLab.open(folder).state.close()
        return folders

    def _brains(self, root: Path, plan: Plan) -> None:
        data = make_labs(self.out / "data", plan.names, self.seed, progress=self.say)
        federation = {
            "format": 1, "id": f"demo-{secrets.token_hex(8)}", "task": brain_task(), "start": {"seed": self.seed},
        }  # fmt: skip
        root.mkdir()
        (root / "federation.toml").write_text(tomli_w.dumps(federation))
        peers = {name: (root / name, data[name].resolve()) for name in plan.names}
        write_peers(peers, self.versions or BRAIN_VERSIONS, self.continuous)

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
        part = "test" if any(r.test_cases for r in results) else "validation"
        with self.timed("baselines"):
            scores = compare(labs, finals, self.out / "baselines", progress, part)
        source = str(self.data) if self.data else "MNI152, deformed"
        with self.timed("figure"):
            score, shown = predict(folders[0], finals["braintorrent"][folders[0].name], part, SHOWN)
            labels = load_federation(folders[0].parent / "federation.toml").task["labels"]
            report.draw(self.out / "report.png", _curves(folders, score), shown, labels, score)
        found = report.build(source, self.seed, results, scores, self.seconds, score, part)
        report.write(found, self.out / "report.json")
        return found


def _fresh(out: Path) -> None:
    """An empty folder for the demo; only what an earlier demo made is removed."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise ConfigError(f"{out}: not empty and not made by the demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _result(folder: Path, peers: Processes) -> report.PeerResult:
    """What one peer did, from its ledger."""
    cases = counts(folder / load_peer(folder).data)
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        newest, traffic = ledger.newest(), ledger.traffic().values()
        return report.PeerResult(
            name=folder.name, id=ensure_identity(folder).id, train_cases=cases["training"],
            test_cases=cases["test"], versions=newest.version.counter if newest else 0,
            merges=len(ledger.merges()), bytes_in=sum(t[0] for t in traffic), bytes_out=sum(t[1] for t in traffic),
            exit=peers.ended[folder.name],
        )  # fmt: skip


def _curves(folders: list[Path], score: str) -> dict[str, list[tuple[float, float]]]:
    """Peer -> (seconds since the first of all, score on its own validation cases after each version)."""
    measured = {}
    for folder in folders:
        with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
            found = [m for m in ledger.metrics() if m.stage == "own" and m.name == score]
            measured[folder.name] = [(m.unix, m.value) for m in found if m.value is not None]
    start = min((points[0][0] for points in measured.values() if points), default=0.0)
    return {name: [(unix - start, value) for unix, value in points] for name, points in measured.items()}
