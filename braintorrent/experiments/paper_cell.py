"""One part of a cell of the paper's table: a deal of DATA to labs, one way to learn from it, and what came of it.

Baselines and peers take the same start, the same batches, as many steps; the node's learners train them all, and the
node's protocol lets the peers take turns in virtual time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.errors import LocalError
from braintorrent.experiments.baselines import aggregate, fedavg
from braintorrent.experiments.cells import keep
from braintorrent.experiments.dealing import Rule
from braintorrent.experiments.labs import Plan, lay_out
from braintorrent.experiments.learners import Learners
from braintorrent.experiments.split import pool
from braintorrent.learning import Learner, open_learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.inference import Network, open_network
from braintorrent.learning.opening import read_weights
from braintorrent.methods import Method
from braintorrent.protocol.policy import Policy, StopRule
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Scenario
from braintorrent.weights import Weights

SPLITS: Mapping[str, Rule] = {"even": "even", "uneven": "size"}
VERSION = 5.0  # virtual seconds to train one, and on average between two labs' turns
Models = Mapping[str, Sequence[Weights]]  # row of the table -> models


@dataclass(frozen=True, slots=True)
class Job:
    """What to deal to how many, and how to learn from it: one of WAYS."""

    labs: int
    split: str
    seed: int
    way: str
    versions: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.split}-{self.labs}-labs-seed-{self.seed}-{self.way}"

    def file(self, cells: Path) -> Path:
        """Where `perform` leaves what it found."""
        return cells / f"{self.name}.json"


def perform(job: Job, data: Path, cells: Path, of: Mapping[str, str]) -> dict[str, Any]:
    """Train, score, and write the job's file: what `job` and `of` say, "scores" (row -> one per model) and "seconds".

    of: the digest of the "data", and the "device" to train on.
    """
    began = time.monotonic()
    with TemporaryDirectory(prefix="braintorrent-paper-") as room:
        folders = _lay_out(job, data, Path(room) / "labs", of["device"])
        models = WAYS[job.way](job, folders)
        scores = {row: list(_scores(folders, made)) for row, made in models.items()}
    found = {**asdict(job), **of, "scores": scores, "seconds": round(time.monotonic() - began, 1)}
    keep(job.file(cells), found)
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
    """Each model's on the test cases of all labs as one set; equal ones are scored once."""
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


def _local(job: Job, folders: Sequence[Path]) -> Models:
    return {"local": [_alone(_open(folder), job.versions) for folder in folders]}


def _fedavg(job: Job, folders: Sequence[Path]) -> Models:
    return {"fedavg": [fedavg([_open(folder) for folder in folders], job.versions)]}


def _pooled(job: Job, folders: Sequence[Path]) -> Models:
    learner = _open(folders[0], str(_pooled_data(folders)))
    return {"pooled": [_alone(learner, job.versions * len(folders))]}


def _alone(learner: Learner, versions: int) -> Weights:
    train_alone(learner, versions)
    return learner.weights().copy()


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
    """Each lab's model after its last local steps; as it ends, after one more merge; and the mean of the former."""
    scenario = setting(job.labs, job.versions)
    with Learners(folders, scenario, job.seed) as learning:
        scenario = replace(scenario, model_bytes=learning.model_bytes)
        world = World(scenario, job.seed, keep_trace=False, learning=learning).run(scenario.seconds)
        peers = list(world.peers.values())
        if late := [peer.name for peer in peers if peer.reason != "finished"]:
            raise LocalError(f"{job.name}: {', '.join(late)} did not end in {scenario.seconds:g} virtual seconds")
        schema, samples = _judge(folders).schema, [lab.samples for lab in learning.labs]
        own = [peer.disk.blobs[peer.disk.newest.content].model.path for peer in peers if peer.disk.newest]
        return {
            "own": [read_weights(path, schema) for path in own],
            "braintorrent": [read_weights(peer.model.path, schema) for peer in peers],
            "aggregate": [aggregate(samples, own, schema)],
        }


WAYS: dict[str, Callable[[Job, Sequence[Path]], Models]] = {
    "peers": _peers, "local": _local, "fedavg": _fedavg, "pooled": _pooled
}  # fmt: skip
