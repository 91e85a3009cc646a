"""Peer folders of several labs on this machine, ready for `braintorrent launch`: for experiments."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.errors import ConfigError
from braintorrent.experiments.dealing import Rule
from braintorrent.experiments.split import Progress, Share, split
from braintorrent.learning import Learner
from braintorrent.learning.opening import cores, open_learner
from braintorrent.methods import Method
from braintorrent.tasks.layouts import PARTS, open_dataset
from braintorrent.workbench.proposing import propose, write
from braintorrent.workbench.proposing_choices import Choice
from braintorrent.workbench.proposing_facts import facts
from braintorrent.workbench.proposing_toml import federation_text, peer_text

NAMES = "abcdefghijklmnopqrstuvwxyz"
TIMING = {"ask_every": 1.0, "alone_after": 60.0, "linger": 300.0}
VERSIONS = {"segmentation": 14, "classification": 10}
STEPS_TIMED = 4
PATIENCE = 6  # rests that a lab waits for the others: a lab that left costs no more
MOST = 32  # others waited for, as many as a merge takes


@dataclass(frozen=True, slots=True)
class Plan:
    """How to deal what to whom. versions: each lab's stop rule; seed: of the deal and of the start weights."""

    labs: int
    by: Rule = "even"
    seed: int = 0
    versions: int | None = None
    continuous: bool = False

    @property
    def names(self) -> list[str]:
        """lab-a, lab-b, ..."""
        return lab_names(self.labs)


def lab_names(count: int) -> list[str]:
    """lab-a to lab-z, then lab-a1, ..."""
    return [f"lab-{NAMES[i % 26]}{i // 26 or ''}" for i in range(count)]


@dataclass(frozen=True, slots=True)
class Laid:
    """What lies on the disk now, lab by lab."""

    root: Path
    kind: str
    labels: tuple[str, ...]
    shares: tuple[Share, ...]
    choices: tuple[Choice, ...]

    @property
    def parts(self) -> list[str]:
        """Those that hold cases."""
        return [part for part in PARTS if any(share.counts[part] for share in self.shares)]

    @property
    def unit(self) -> str:
        """Of `Share.amounts`; "" where they are numbers of images."""
        return " (mL)" if self.kind == "segmentation" else ""

    @property
    def notes(self) -> list[str]:
        """Where the deal left a lab without something that its scores need."""
        found = []
        for share in self.shares:
            for part, absent in share.absent.items():
                found.append(
                    f"{share.name}: no {' and no '.join(absent)} in {part}; scores that need every class, "
                    "such as AUC, are not defined there"
                )
        return found

    def plain(self) -> dict[str, Any]:
        """One JSON-able object."""
        labs = [
            {"name": share.name, "folder": str(self.root / share.name), **share.counts,
             "labels": dict(zip(self.labels, share.amounts, strict=False))}
            for share in self.shares
        ]  # fmt: skip
        choices = [asdict(choice) for choice in self.choices]
        return {"root": str(self.root), "labs": labs, "unit": self.unit.strip(" ()"), "notes": self.notes,
                "choices": choices}  # fmt: skip


def lay_out(data: Path, root: Path, plan: Plan, *, measure: bool = False, progress: Progress = lambda *_: None) -> Laid:
    """One peer folder per lab below `root`, and the federation.toml that `new` would write for the whole.

    ConfigError if there is something in `root`; DataError as in `new` and `split`.
    """
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"{root}: not empty, and nothing is overwritten; give another folder")
    try:
        return _lay_out(data, root, plan, measure, progress)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)  # half of it helps nobody, and would be in the way of the next try
        raise


def _lay_out(data: Path, root: Path, plan: Plan, measure: bool, progress: Progress) -> Laid:
    dataset = open_dataset(data)
    found = facts(dataset, progress)
    folders = {name: root / name / "data" for name in plan.names}
    shares = split(dataset, folders, found.labels, plan.by, plan.seed, measure=measure, progress=progress)
    choices = propose(data.resolve().stem, found, round(median(share.counts["training"] for share in shares)))
    choices = [Choice(c.key, plan.seed, c.why) if c.key == "start.seed" else c for c in choices]
    write(root, {"federation.toml": federation_text(choices)})
    progress("timing a few steps", 0, 1)
    peers = {name: (root / name, Path("data")) for name in plan.names}
    write_peers(peers, plan.versions or VERSIONS[found.kind], plan.continuous)
    progress("laid out", 1, 1)
    return Laid(root, found.kind, found.labels, tuple(shares), tuple(choices))


def write_peers(peers: Mapping[str, tuple[Path, Path]], versions: int, continuous: bool = False) -> None:
    """peer.toml of labs that run side by side; peers: name -> (peer folder, its data).

    The labs take turns as in Roy et al., section 2: each wakes on an exponential clock, waits a while for something
    newer from every other lab, and so merges models that are done and of one age. continuous: all train at once,
    merging models that are half a version old.
    federation.toml must be in their parent: how long a lab rests follows from a few real steps of the first one.
    """

    def text(name: str, timing: dict[str, Any]) -> str:
        return peer_text(name, peers[name][1], "127.0.0.1:0", rest={"timing": timing, "stop": {"versions": versions}})

    for name, (folder, _) in peers.items():
        write(folder, {"peer.toml": text(name, TIMING)})
    if continuous:
        return
    rest = resting([folder for folder, _ in peers.values()])
    patience = round(PATIENCE * rest, 2)
    turns = {"cadence": "poisson", "interval": rest, "quorum": min(len(peers) - 1, MOST), "patience": patience}
    for name, (folder, _) in peers.items():
        write(folder, {"peer.toml": text(name, {**TIMING, **turns})})


def resting(folders: Sequence[Path]) -> float:
    """Seconds a lab rests: where labs share cores, until it would be its turn."""
    first = folders[0]
    federation = load_federation(federation_path(first))
    learner = open_learner(federation, load_peer(first), first, Method())
    version = _seconds_per_version(learner, federation.task["steps"])
    return round(max(1.0, len(folders) / cores() - 1) * version, 2)


def _seconds_per_version(learner: Learner, steps: int) -> float:
    """Training and evaluation, estimated from a few real steps."""
    took: list[float] = []
    learner.train(lambda: len(took) == STEPS_TIMED, lambda step, steps: took.append(time.monotonic()))
    began = time.monotonic()
    learner.evaluate()
    return time.monotonic() - began + steps * (took[-1] - took[0]) / (len(took) - 1)
