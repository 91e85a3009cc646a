"""What BrainTorrent is measured against: each lab alone, a FedAvg server, pooled data; same labs, same task.

    local     each lab trains alone, as many steps as its peer took
    fedavg    McMahan et al., AISTATS 2017: each round every lab trains one version from the server's model, and
              the server takes the sample-weighted mean; as many rounds as the peers trained versions. Evaluated:
              the server's model after the last round
    pooled    one model on all labs' training cases, as many steps as all labs took together
    aggregate the sample-weighted mean of the labs' final models, computed from outside (Roy et al., section 3)

Each lab's batches are the ones its peer drew: same seeds. Jobs run in processes of one thread each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.contracts import Candidate, Prediction
from braintorrent.experiments.split import counts, pool
from braintorrent.learning import Learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.merging import merge
from braintorrent.learning.opening import cores, open_learner, read_weights
from braintorrent.methods import Method
from braintorrent.storage import file_digest
from braintorrent.weights import Schema, Weights

if TYPE_CHECKING:
    from braintorrent.learning.inference import Network
    from braintorrent.learning.learner import TorchLearner

EVERYWHERE = "all labs"

Scores = dict[str, dict[str, dict[str, float]]]
"""Row -> model name -> test lab, or EVERYWHERE for all labs' cases as one set -> score; missing where undefined."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A peer folder, and how many versions its peer trained."""

    name: str
    folder: Path
    versions: int


def compare(
    labs: Sequence[Lab], finals: Mapping[str, Mapping[str, Path]], work: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, jobs: None, part: str = "test",
) -> Scores:  # fmt: skip
    """Train the baselines and score every model on every lab's cases of `part`.

    finals: rows of given models, row -> lab -> safetensors file; "own" is what `aggregate` is the mean of.
    work: where the baselines' models go. progress(what, done, jobs) after each job.
    """
    work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn"), initializer=_one_thread) as pool_:
        try:
            models = _train_all(pool_, labs, work, progress)
            folders = [lab.folder for lab in labs]
            own = [finals["own"][lab.name] for lab in labs]
            aggregate = work / "aggregate.safetensors"
            pool_.submit(_aggregate, folders, own, aggregate).result()
            models |= {**{row: dict(given) for row, given in finals.items()}, "aggregate": {"aggregate": aggregate}}
            return _score_all(pool_, labs, models, part, progress)
        except BaseException:
            pool_.shutdown(wait=False, cancel_futures=True)
            raise


def predict(folder: Path, model: Path, part: str, cases: int) -> tuple[str, list[Prediction]]:
    """The metric that is better when larger, and a model's first so many cases of a lab with arrays for figures."""
    network = _network(folder)
    network.load(read_weights(model, network.schema))
    return network.task.score, network.task.evaluate(network.module, part, arrays=True)[:cases]


def _train_all(
    workers: ProcessPoolExecutor, labs: Sequence[Lab], work: Path, progress: Callable[[str, int, int], None]
) -> dict[str, dict[str, Path]]:
    folders, total = [lab.folder for lab in labs], sum(lab.versions for lab in labs)
    models = {
        "pooled": {"pooled": work / "pooled.safetensors"}, "fedavg": {"fedavg": work / "fedavg.safetensors"},
        "local": {lab.name: work / f"local-{lab.name}.safetensors" for lab in labs},
    }  # fmt: skip
    jobs: dict[Future[Any], str] = {  # the two longest first, so that no core waits for one at the end
        workers.submit(_pooled, folders, total, models["pooled"]["pooled"]): "pooled",
        workers.submit(_fedavg, folders, max(lab.versions for lab in labs), models["fedavg"]["fedavg"]): "fedavg",
    }
    for lab in labs:
        jobs[workers.submit(_local, lab.folder, lab.versions, models["local"][lab.name])] = f"{lab.name} alone"
    for done, job in enumerate(as_completed(jobs), 1):
        job.result()
        progress(f"trained {jobs[job]}", done, len(jobs))
    return models


def _score_all(
    workers: ProcessPoolExecutor, labs: Sequence[Lab], models: Mapping[str, Mapping[str, Path]], part: str,
    progress: Callable[[str, int, int], None],
) -> Scores:  # fmt: skip
    """Equal files are scored once: peers that ended together hold the same model."""
    digests = {path: file_digest(path) for row in models.values() for path in row.values()}
    distinct = {digest: path for path, digest in digests.items()}
    jobs = {workers.submit(_predictions, lab.folder, distinct, part): lab.name for lab in labs}
    found: dict[str, dict[str, list[Prediction]]] = {}
    for done, job in enumerate(as_completed(jobs), 1):
        found[jobs[job]] = job.result()
        progress(f"compared on {jobs[job]}", done, len(jobs))
    by_model = {digest: {lab.name: found[lab.name][digest] for lab in labs} for digest in distinct}
    scores = workers.submit(_scores, labs[0].folder, by_model).result()
    return {row: {name: scores[digests[path]] for name, path in given.items()} for row, given in models.items()}


def _local(folder: Path, versions: int, out: Path) -> None:
    learner = _open(folder)
    train_alone(learner, versions)
    _save(learner.weights(), out)


def _pooled(folders: Sequence[Path], versions: int, out: Path) -> None:
    learner = _open(folders[0], data=pool([_data(f) for f in folders], out.parent / "pooled-data"))
    train_alone(learner, versions)
    _save(learner.weights(), out)


def _fedavg(folders: Sequence[Path], rounds: int, out: Path) -> None:
    _save(fedavg([_open(folder) for folder in folders], rounds), out)


def fedavg(learners: Sequence[Learner], rounds: int) -> Weights:
    """The server's model after so many rounds, from the weights the learners have now."""
    server = learners[0].weights().copy()
    for _ in range(rounds):
        with ExitStack() as files:
            clients = []
            for number, learner in enumerate(learners):
                learner.load(server)
                train_alone(learner, 1)
                file = files.enter_context(TemporaryFile())
                clients.append(_candidate(f"{number:04}", learner, file))
            merge(Method(), None, Candidate("server", 0, -1), clients, server)
    return server


def _aggregate(folders: Sequence[Path], models: Sequence[Path], out: Path) -> None:
    samples = [counts(_data(folder))["training"] for folder in folders]
    _save(aggregate(samples, models, _network(folders[0]).schema), out)


def aggregate(samples: Sequence[int], models: Sequence[Path], schema: Schema) -> Weights:
    """The mean of labs' models, weighted with their training cases."""
    mean = Weights(schema)
    with ExitStack() as files:
        candidates = [
            Candidate(f"{number:04}", cases, files.enter_context(path.open("rb")).fileno())
            for number, (cases, path) in enumerate(zip(samples, models, strict=True))
        ]
        merge(Method(), None, Candidate("outside", 0, -1), candidates, mean)
    return mean


def _predictions(folder: Path, models: Mapping[str, Path], part: str) -> dict[str, list[Prediction]]:
    network, found = _network(folder), {}
    for name, path in models.items():
        network.load(read_weights(path, network.schema))
        found[name] = network.task.evaluate(network.module, part)
    return found


def _scores(folder: Path, models: Mapping[str, Mapping[str, list[Prediction]]]) -> dict[str, dict[str, float]]:
    """Model -> test lab, and EVERYWHERE -> score: some, like AUC, belong to a set of cases and not to one."""
    task = _network(folder).task
    found = {}
    for model, labs in models.items():
        sets = {**labs, EVERYWHERE: [prediction for predictions in labs.values() for prediction in predictions]}
        values = {name: task.summary(predictions).get(task.score) for name, predictions in sets.items()}
        found[model] = {name: value for name, value in values.items() if value is not None}
    return found


def _open(folder: Path, data: Path | None = None) -> TorchLearner:
    federation, peer = load_federation(federation_path(folder)), load_peer(folder)
    changes = {"threads": 1} | ({"data": str(data.resolve())} if data else {})
    return open_learner(federation, peer.model_copy(update=changes), folder, Method())  # type: ignore[return-value]


def _network(folder: Path) -> Network:
    """For models that are applied only: the training cases, which cost more to read than to segment, stay unread."""
    from braintorrent.learning.inference import open_network

    peer = load_peer(folder).model_copy(update={"threads": 1})
    return open_network(load_federation(federation_path(folder)), peer, folder)


def _data(folder: Path) -> Path:
    return folder / load_peer(folder).data


def _candidate(author: str, learner: Learner, file: IO[bytes]) -> Candidate:
    _write(learner.weights(), file)
    return Candidate(author, learner.samples, file.fileno())


def _save(weights: Weights, path: Path) -> None:
    with path.open("wb") as file:
        _write(weights, file)


def _write(weights: Weights, file: IO[bytes]) -> None:
    file.writelines(weights.parts)
    file.flush()


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"] = "1", "passive"
