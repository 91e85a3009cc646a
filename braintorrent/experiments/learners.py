"""Real learners for the simulator: the node's own training and merging on real data, while virtual time decides when.

Labs are peer folders below one federation.toml, as `braintorrent run` takes them. Each belongs to one worker, which
does what is asked of that lab in order and at once; only whoever needs a result waits for it. So the number of workers,
and where they are, decides how long a run takes, and nothing else. A model is a safetensors file on the disk of whoever
works with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import nan
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from braintorrent import plugins
from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.contracts import Candidate
from braintorrent.errors import LocalError
from braintorrent.experiments.on_ray import OnRay
from braintorrent.experiments.workers import GONE
from braintorrent.experiments.working import Processes, Work, Workers
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.merging import merge
from braintorrent.learning.opening import open_learner, read_weights
from braintorrent.simulation.learner import Measured, Offered, labs
from braintorrent.simulation.scenario import Scenario
from braintorrent.weights import Weights

ENGINES: dict[str, Callable[[int | None, int], Workers]] = {"processes": Processes, "ray": OnRay}


class Made(NamedTuple):
    """A model that is written: its digest, and its score on its lab's validation cases, if it was trained there."""

    digest: str
    score: float | None = None


class Model:
    """A safetensors file, perhaps still in the making. It is forgotten when nobody knows of it any more."""

    def __init__(self, path: Path, made: Future[Made], forget: Callable[[Path], None], of: Sequence[Model]) -> None:
        self.path, self._made = path, made
        held = [self, *of]  # a worker reads and writes these, even if a lab that crashed wants them no more
        made.add_done_callback(lambda _: held.clear())
        finalize(self, forget, path)

    @property
    def made(self) -> Made:
        """Waits until the file is written. LocalError if its worker ended before that."""
        with _told():
            return self._made.result()

    def __repr__(self) -> str:
        return self.made.digest


class Learners:
    """A simulation Learning: the labs of `folders`. Use it in a `with`.

    workers: how many; 0: all is done here; None: one per core. engine: where they are, one of ENGINES.
    """

    def __init__(
        self, folders: Sequence[Path], scenario: Scenario, seed: int, workers: int | None = 0, engine: str = "processes"
    ) -> None:
        self._folders, self._count, self._scores = folders, 0, dict[int, float]()
        self._workers = ENGINES[engine](workers, len(folders))
        self._room = TemporaryDirectory(prefix="braintorrent-models-")
        try:
            start = self._model(0, _start)
            opened = [self._on(lab, _facts) for lab in range(len(folders))]
            with _told():
                facts = [lab.result() for lab in opened]
        except BaseException:
            self.close(now=True)
            raise
        self.start, self.score, self.model_bytes = start, facts[0].score, facts[0].size
        drawn = labs(scenario, Random(f"{seed}/labs"))
        self.labs = [replace(lab, samples=fact.samples) for lab, fact in zip(drawn, facts, strict=True)]

    def __enter__(self) -> Learners:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(now=kind is not None)

    def close(self, now: bool = False) -> None:
        """End the workers, once they are done with what they are doing or now, and delete the models."""
        with self._room:
            self._workers.close(now)
        for folder in self._folders:
            _LABS.pop(folder, None)  # those that were opened here

    def train(self, lab: int, model: Model, before: int, rng: Random) -> Callable[[], tuple[Model, float | None]]:
        """One version's local steps, then the score on the lab's own validation cases; `rng` is not needed."""
        return partial(self._trained, lab, self._model(lab, _train, before, of=[model]))

    def _trained(self, lab: int, model: Model) -> tuple[Model, float | None]:
        score = model.made.score
        if score is not None:
            self._scores[lab] = score
        return model, score

    def merge(self, lab: int, own: Model | None, others: Offered) -> Model:
        """As the federation's method does."""
        offered = [(author, samples) for author, samples, _ in others]
        of = [*(model for _, _, model in others), *([own] if own else [])]
        return self._model(lab, _merge, offered, of=of)

    def poison(self, model: Model, scale: float) -> Model:
        """Every number moved. Made on return: others merge it, whose workers do not wait for this one."""
        moved = self._model(0, _poison, scale, of=[model])
        assert moved.made
        return moved

    def measure(self, models: Mapping[int, Model]) -> Measured:
        """Scores are each lab's last on its own cases; distances are root mean squares over parameters."""
        scores = [self._scores[lab] for lab in models if lab in self._scores] or [nan]
        flat = [self._flat(model) for model in models.values()]
        centre = sum(flat) / max(1, len(flat))
        apart = [float(np.sqrt(np.mean((one - centre) ** 2))) for one in flat] or [nan]
        return Measured(fmean(scores), min(scores), fmean(apart))

    def _flat(self, model: Model) -> NDArray[np.float32]:
        """[parameters] of a model's floats."""
        assert model.made
        with _told():
            self._workers.bring(model.path)
        return np.concatenate([t.ravel() for t in load_file(model.path).values() if t.dtype.kind == "f"])

    def _on(
        self, lab: int, do: Callable[..., Any], *options: Any,
        reads: tuple[Path, ...] = (), writes: tuple[Path, ...] = (),
    ) -> Future[Any]:  # fmt: skip
        with _told():
            return self._workers.submit(lab, Work(do, self._folders[lab], options, reads, writes))

    def _model(self, lab: int, do: Callable[..., Made], *options: Any, of: Sequence[Model] = ()) -> Model:
        self._count += 1
        path = Path(self._room.name) / f"{self._count}.safetensors"
        made = self._on(lab, do, *options, reads=tuple(model.path for model in of), writes=(path,))
        return Model(path, made, self._workers.forget, of)


@contextmanager
def _told() -> Iterator[None]:
    """Of a worker that is gone, in words."""
    try:
        yield
    except BrokenExecutor:
        raise LocalError(GONE) from None


# ----------------------------------------------------------------- in a worker


class _Facts(NamedTuple):
    samples: int
    score: str
    size: int  # bytes of a model


class _Lab:
    """One lab: its learner, and which file's weights that has."""

    def __init__(self, folder: Path) -> None:
        federation, peer = load_federation(federation_path(folder)), load_peer(folder)
        self.method = plugins.load("methods", federation.method.name).create(**federation.method.options)
        self.learner = open_learner(federation, peer, folder, self.method)
        self.at: Path | None = None

    def write(self, weights: Weights, path: Path, score: float | None = None) -> Made:
        with path.open("wb") as file:
            file.writelines(weights.parts)
        return Made(weights.digest, score)


_LABS: dict[Path, _Lab] = {}  # of this process


def _lab(folder: Path) -> _Lab:
    if folder not in _LABS:
        _LABS[folder] = _Lab(folder)
    return _LABS[folder]


def _facts(folder: Path) -> _Facts:
    learner = _lab(folder).learner
    return _Facts(learner.samples, learner.score, learner.schema.size)


def _start(folder: Path, out: Path) -> Made:
    lab = _lab(folder)
    return lab.write(lab.learner.weights(), out)


def _train(folder: Path, before: int, model: Path, out: Path) -> Made:
    """Weights that a merge or a restart brought are loaded; those of its last version it has, and its optimiser too."""
    lab = _lab(folder)
    learner = lab.learner
    if lab.at != model:
        learner.load(read_weights(model, learner.schema))
    if hasattr(learner, "after"):
        learner.restore(learner.after(before))
    train_alone(learner, 1)
    lab.at = out
    return lab.write(learner.weights(), out, learner.evaluate().get(learner.score))


def _merge(folder: Path, offered: Sequence[tuple[str, int]], *files: Path) -> Made:
    """files: those offered; the lab's own, but not for a newcomer that adopts; where to write."""
    *models, out = files
    lab, others, own = _lab(folder), models[: len(offered)], models[len(offered) :]
    schema, me = lab.learner.schema, Candidate("", lab.learner.samples, -1)
    merged = Weights(schema)
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb")).fileno() for path in others]
        candidates = [Candidate(*of, file) for of, file in zip(offered, opened, strict=True)]
        merge(lab.method, read_weights(own[0], schema) if own else None, me, candidates, merged)
    return lab.write(merged, out)


def _poison(folder: Path, scale: float, model: Path, out: Path) -> Made:
    lab = _lab(folder)
    weights = read_weights(model, lab.learner.schema)
    for spec, values in weights:
        if spec.dtype == "F32":
            values += scale
    return lab.write(weights, out)
