"""`python -m braintorrent.experiments.paper DATA OUT`: the setting of Roy et al. (arXiv:1905.06731) on DATA, in a table.

So many labs share out DATA, evenly or unevenly (lab k of n gets k / (1 + ... + n) of the cases). One after the other,
drawn at random, asks all others, merges what is newer and trains: the node's protocol and learners in virtual time.

    local         each lab alone, as many steps
    fedavg        a FedAvg server, as many rounds
    own           BrainTorrent, each lab after its last local steps
    braintorrent  as it ends, after one more merge
    aggregate     the sample-weighted mean of `own`, from outside
    pooled        all scans in one place, as many steps as all labs took

Every model is scored on the test cases of all labs as one set. Writes OUT/cells/*.json, one file per part of a cell,
and leaves those alone that are there: what was interrupted goes on. Then OUT/paper.json, and the table.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.errors import BrainTorrentError, ConfigError, LocalError
from braintorrent.experiments.baselines import aggregate, fedavg
from braintorrent.experiments.dealing import Rule
from braintorrent.experiments.labs import Plan, lay_out
from braintorrent.experiments.learners import Learners
from braintorrent.experiments.split import pool
from braintorrent.learning import Learner, open_learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.inference import Network, open_network
from braintorrent.learning.opening import cores, read_weights
from braintorrent.methods import Method
from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Scenario
from braintorrent.storage import write_atomically
from braintorrent.weights import Weights

LABS, SEEDS, VERSIONS = (5, 7, 10, 20), (0, 1, 2), 10
SPLITS: Mapping[str, Rule] = {"even": "even", "uneven": "size"}
VERSION = 5.0  # virtual seconds to train one, and on average between two labs' turns
Models = Mapping[str, Sequence[Weights]]  # row of the table -> models
ROWS: tuple[tuple[str, str, Callable[[Sequence[float]], float]], ...] = (
    ("local", "each lab alone", fmean),
    ("local", "  the worst lab", min),
    ("fedavg", "FedAvg server", fmean),
    ("own", "BrainTorrent peers after their last local steps", fmean),
    ("own", "  the worst peer", min),
    ("braintorrent", "BrainTorrent peers as they end", fmean),
    ("braintorrent", "  the worst peer", min),
    ("aggregate", "aggregate, from outside", fmean),
    ("pooled", "pooled", fmean),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One part of a cell of the table: a deal of DATA, and one way to learn from it."""

    labs: int
    split: str
    seed: int
    way: str
    versions: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.split}-{self.labs}-labs-seed-{self.seed}-{self.way}"


def perform(job: Job, data: Path, out: Path, device: str) -> dict[str, Any]:
    """Train, score, and write the cell's file: what `job` says, "scores" (row -> one per model) and "seconds"."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="braintorrent-paper-") as room:
        folders = _lay_out(job, data, Path(room) / "labs", device)
        models = WAYS[job.way](job, folders)
        scores = {row: list(_scores(folders, made)) for row, made in models.items()}
    found = {**asdict(job), "scores": scores, "device": device, "seconds": round(time.monotonic() - began, 1)}
    write_atomically(_file(job, out), (json.dumps(found) + "\n").encode(), mode=0o644)
    return found


def _lay_out(job: Job, data: Path, root: Path, device: str) -> list[Path]:
    """Peer folders that train as `new` proposes for DATA, in one thread each."""
    plan = Plan(job.labs, SPLITS[job.split], job.seed, job.versions, continuous=True)
    lay_out(data, root, plan)
    for name in plan.names:
        peer = {"name": name, "data": "data", "device": device, "precision": "float32", "threads": 1}
        (root / name / "peer.toml").write_text(tomli_w.dumps(peer))
    return [root / name for name in plan.names]


def _scores(folders: Sequence[Path], models: Sequence[Weights]) -> Iterator[float]:
    """Each model's on the test cases of all labs; equal ones are scored once."""
    judge, known = _judge(folders), dict[str, float]()
    for weights in models:
        if weights.digest not in known:
            judge.load(weights)
            predictions = judge.task.evaluate(judge.module, "test")
            known[weights.digest] = float(judge.task.summary(predictions)[judge.task.score])
        yield known[weights.digest]


def _judge(folders: Sequence[Path]) -> Network:
    peer = load_peer(folders[0]).model_copy(update={"data": str(_pooled_data(folders))})
    return open_network(load_federation(federation_path(folders[0])), peer, folders[0])


def _pooled_data(folders: Sequence[Path]) -> Path:
    folder = (folders[0].parent / "pooled").resolve()
    return folder if folder.exists() else pool([one / "data" for one in folders], folder)


def _open(folder: Path, data: str = "data") -> Learner:
    peer = load_peer(folder).model_copy(update={"data": data})
    return open_learner(load_federation(federation_path(folder)), peer, folder, Method())


# ----------------------------------------------------------------- the ways to learn


def _alone(learner: Learner, versions: int) -> Weights:
    train_alone(learner, versions)
    return learner.weights().copy()


def _local(job: Job, folders: Sequence[Path]) -> Models:
    return {"local": [_alone(_open(folder), job.versions) for folder in folders]}


def _fedavg(job: Job, folders: Sequence[Path]) -> Models:
    return {"fedavg": [fedavg([_open(folder) for folder in folders], job.versions)]}


def _pooled(job: Job, folders: Sequence[Path]) -> Models:
    learner = _open(folders[0], str(_pooled_data(folders)))
    return {"pooled": [_alone(learner, job.versions * len(folders))]}


def setting(labs: int, versions: int) -> Scenario:
    """All begin alone and at once; then a lab takes its turn whenever its exponential clock says so."""
    turn = labs * VERSION
    seconds = 20 * versions * turn  # far longer than the unluckiest lab takes
    pace = Policy(
        ask_every=VERSION, ask_deadline=VERSION, alone_after=VERSION, mean_interval=turn, max_merge=labs,
        linger=seconds, stop=StopRule(versions=versions),
    )  # fmt: skip
    return Scenario("paper", "", labs, seconds, pace, version_seconds=VERSION, within=VERSION / 10)


def _peers(job: Job, folders: Sequence[Path]) -> Models:
    scenario = setting(job.labs, job.versions)
    with Learners(folders, scenario, job.seed) as learning:
        scenario = replace(scenario, model_bytes=learning.model_bytes)
        world = World(scenario, job.seed, keep_trace=False, learning=learning).run(scenario.seconds)
        peers = list(world.peers.values())
        if late := [peer.name for peer in peers if peer.reason != "finished"]:
            raise LocalError(f"{job.name}: {', '.join(late)} did not end in {scenario.seconds:g} virtual seconds")
        newest = [peer.disk.blobs[peer.disk.newest.content].model for peer in peers if peer.disk.newest]
        schema, samples = _judge(folders).schema, [lab.samples for lab in learning.labs]
        own, ended = [[read_weights(m.path, schema) for m in of] for of in (newest, [p.model for p in peers])]
        return {"own": own, "braintorrent": ended,
                "aggregate": [aggregate(samples, [model.path for model in newest], schema)]}  # fmt: skip


WAYS: dict[str, Callable[[Job, Sequence[Path]], Models]] = {
    "peers": _peers, "local": _local, "fedavg": _fedavg, "pooled": _pooled
}  # fmt: skip


# ----------------------------------------------------------------- all of them


def make(
    jobs: Sequence[Job], data: Path, out: Path, device: str, workers: int, say: Callable[[str], None]
) -> list[str]:  # fmt: skip
    """Write the cells that are missing in `out`, so many at once; what went wrong, in words."""
    troubles = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as processes:
        doing = {processes.submit(perform, job, data, out, device): job for job in jobs if not _file(job, out).exists()}
        try:
            for number, done in enumerate(as_completed(doing), 1):
                try:
                    cell = done.result()
                    rows = ", ".join(f"{row} {fmean(scores):.3f}" for row, scores in cell["scores"].items())
                    say(f"{number} of {len(doing)}: {doing[done].name}: {rows} ({cell['seconds']:g} s)")
                except BrainTorrentError as error:
                    troubles.append(f"{doing[done].name}: {error}")
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise
    return troubles


def kept(jobs: Sequence[Job], out: Path) -> list[dict[str, Any]]:
    """The cells that are there. ConfigError if one is of another number of versions."""
    cells = [json.loads(path.read_text()) for job in jobs if (path := _file(job, out)).exists()]
    if others := {cell["versions"] for cell in cells} - {job.versions for job in jobs}:
        raise ConfigError(f"{out}: holds cells of {min(others)} versions; move them away, or give another OUT")
    return cells


def _file(job: Job, out: Path) -> Path:
    return out / f"{job.name}.json"


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a cell that is interrupted is made anew
    os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"] = "1", "passive"


def table(cells: Sequence[Mapping[str, Any]], score: str = "score") -> Table:
    """Mean over seeds ± spread (most less least) over seeds; columns: splits and numbers of labs."""
    columns = sorted({(cell["split"], cell["labs"]) for cell in cells})
    shown = Table("", *(f"{split}, {labs} labs" for split, labs in columns), title=score, title_justify="left")
    for row, words, over in ROWS:
        shown.add_row(words, *(_figure(cells, row, over, *column) for column in columns))
    return shown


def _figure(
    cells: Sequence[Mapping[str, Any]], row: str, over: Callable[[Sequence[float]], float], split: str, labs: int
) -> str:
    of = [cell["scores"] for cell in cells if (cell["split"], cell["labs"]) == (split, labs)]
    values = [over(scores[row]) for scores in of if row in scores]
    return f"{fmean(values):.3f} ± {max(values) - min(values):.3f}" if values else ""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.paper", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", type=Path, help="a data folder with labels, such as Task04_Hippocampus")
    parser.add_argument("out", type=Path, help="where paper.json and cells/ go")
    parser.add_argument("--labs", type=_numbers, default=LABS, metavar="5,7,...", help="default: 5,7,10,20")
    parser.add_argument("--seeds", type=_numbers, default=SEEDS, metavar="0,1,...", help="default: 0,1,2")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=tuple(SPLITS))
    parser.add_argument("--versions", type=int, default=VERSIONS, help=f"of each lab (default: {VERSIONS})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--workers", type=int, default=cores(), help="cells at once (default: one per core)")
    given, console = parser.parse_args(argv), Console()
    jobs = [
        Job(labs, split, seed, way, given.versions)
        for seed in given.seeds
        for labs in sorted(given.labs, reverse=True)  # the longest first, so that no core waits for one at the end
        for split in given.splits
        for way in WAYS
    ]
    cells = given.out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    try:
        kept(jobs, cells)
        troubles = make(jobs, given.data, cells, given.device, given.workers, console.print)
    except KeyboardInterrupt:
        troubles = ["interrupted; the same command goes on with what is missing"]
    except LocalError as error:
        sys.exit(f"{parser.prog}: {error}")
    found = kept(jobs, cells)
    (given.out / "paper.json").write_text(json.dumps({"data": given.data.name, "cells": found}, indent=1) + "\n")
    console.print(table(found, f"score on all labs' test cases, {given.versions} versions of each lab"))
    if troubles:
        sys.exit("\n".join(troubles))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
