"""Any MONAI bundle with a training configuration, unchanged, through monai.fl.client.MonaiAlgo; see docs/bundles.md.

A bundle's configuration is code. So the lab installs it by hand, and its digest is part of the agreement; it is never
fetched from a peer. Weights travel and are stored in this project's roles; MonaiAlgo's checkpoint loading is not used.

A version is `epochs` epochs of the bundle's trainer. One that is interrupted, by a halt or a kill, begins again with
the weights, optimisers and schedules it began with: its iterations are lost, and nothing is trained twice or wrongly.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from braintorrent.config import Section, validate
from braintorrent.contracts import Trained
from braintorrent.errors import ConfigError, DataError, Diverged, LocalError
from braintorrent.tasks._bundle_folder import copy, digest
from braintorrent.tasks._bundle_quiet import log, quietly
from braintorrent.tasks._bundle_state import pack, unpack
from braintorrent.tasks._meta import tracking
from braintorrent.weights import Schema, Weights
from braintorrent.weights.modules import FlatModel

if TYPE_CHECKING:
    from monai.fl.client import ClientAlgo

__all__ = ["BundleLearner", "Options", "digest", "open_learner"]


class Options(Section):
    """[task] of federation.toml where kind = "bundle"."""

    kind: Literal["bundle"]
    bundle: str = Field(min_length=1, description="the bundle's folder, absolute or relative to federation.toml")
    digest: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="digest of the bundle; checked if given")
    algo: str = Field("monai", pattern=r"^[a-z0-9_]+$", description="MonaiAlgo, or an installed ClientAlgo")
    epochs: int = Field(1, ge=1, description="epochs of the bundle's trainer per version")
    score: str = Field("", description="the evaluator's metric that counts, larger is better; default: its key metric")
    samples: int | None = Field(None, ge=1, description="training cases; default: length of the training dataset")
    overrides: dict[str, Any] = Field(default_factory=dict, description="id in the bundle's configuration -> value")

    @model_validator(mode="after")
    def _pinned_elsewhere(self) -> Options:
        path = PurePath(self.bundle)
        if not self.digest and (path.is_absolute() or ".." in path.parts):
            raise ValueError("digest: needed where bundle leads out of federation.toml's folder; see docs/bundles.md")
        return self


class BundleLearner:
    """A learning.Learner around an initialised ClientAlgo. stateful: its optimisers and schedules by name.

    pin: the bundle's digest; where: for errors; seed: of this lab's batches; scratch: kept as long as the learner.
    """

    def __init__(
        self, algo: ClientAlgo, module: torch.nn.Module, stateful: Mapping[str, Any], *, epochs: int, samples: int,
        score: str, seed: int, pin: str, where: str, scratch: object = None,
    ) -> None:  # fmt: skip
        from braintorrent.tasks._bundle_algo import engine

        self.algo, self.epochs, self.samples, self.score, self.seed = algo, epochs, samples, score, seed
        self.facts, self._where = {"task.bundle": pin}, where
        self._scratch, self._stateful, self._trainer = scratch, stateful, engine(algo)
        self._flat = FlatModel(module)
        self._versions = 0  # since this lab began
        self._begun: dict[str, NDArray[Any]] | None = None  # `state` at the begin of the version under way

    @property
    def schema(self) -> Schema:
        """Layout of the travelling weights."""
        return self._flat.schema

    def weights(self) -> Weights:
        """The current weights; on the CPU the live network's own memory."""
        return self._flat.weights()

    def load(self, weights: Weights) -> None:
        """Take these weights. Optimisers and schedules go on, as they do in MonaiAlgo from round to round."""
        self._flat.load(weights)

    def train(self, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> Trained:
        """One version: `epochs` epochs. Halted, it is not complete, and leaves the learner as it was before.

        Diverged when a loss is not finite; then, too, all is as before.
        """
        from braintorrent.tasks._bundle_run import Run
        from braintorrent.tasks._bundle_workflow import in_one_line

        began = time.monotonic()
        self._begun = self._snapshot() | {"weights": self.weights().buffer.copy()}
        self._draw_anew()
        run = Run(self.epochs, halt, progress)
        with tracking(True), in_one_line(f"{self._where}: training", LocalError):
            run.train(self.algo, self._flat.module.state_dict())
        if run.halted or run.diverged:
            self.restore(self._begun)
        else:
            self._take()
            self._versions += 1
            self._begun = None
        if run.diverged:
            raise Diverged(f"training diverged at iteration {run.done} of a version; a lower learning rate may help")
        return Trained(run.done, time.monotonic() - began, run.loss, complete=not run.halted)

    def evaluate(self) -> dict[str, float]:
        """What the bundle's evaluator measures on its validation data; finite numbers only."""
        from monai.fl.utils.exchange_object import ExchangeObject

        from braintorrent.tasks._bundle_workflow import in_one_line

        with tracking(True), in_one_line(f"{self._where}: evaluation", LocalError):
            metrics = self.algo.evaluate(ExchangeObject(weights=dict(self._flat.module.state_dict()))).metrics or {}
        numbers = {str(name): _number(value) for name, value in metrics.items()}
        return {name: value for name, value in numbers.items() if np.isfinite(value)}

    def state(self) -> dict[str, NDArray[Any]]:
        """Optimisers, schedules and counters; inside a version those it began with, and its first weights."""
        return dict(self._begun) if self._begun is not None else self._snapshot()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo `state`. What another bundle's optimiser knew says nothing here, and is left."""
        self._begun = None
        self._versions = int(state["versions"])
        if "weights" in state:
            weights = Weights(self.schema)
            np.copyto(weights.buffer, state["weights"])
            self.load(weights)
        if state["pin"].tobytes().decode() != self.facts["task.bundle"]:
            log.warning("the checkpoint is of another bundle: optimisers begin afresh")
            return
        whole = unpack({name.removeprefix("inner."): array for name, array in state.items()})
        for name, inner in whole["stateful"].items():
            self._stateful[name].load_state_dict(inner)
        if self._trainer is not None:
            self._trainer.state.epoch, self._trainer.state.iteration = whole["epoch"], whole["iteration"]

    def _snapshot(self) -> dict[str, NDArray[Any]]:
        whole: dict[str, Any] = {"stateful": {name: item.state_dict() for name, item in self._stateful.items()}}
        if self._trainer is not None:
            whole |= {"epoch": self._trainer.state.epoch, "iteration": self._trainer.state.iteration}
        return {
            "versions": np.array(self._versions, np.int64),
            "pin": np.frombuffer(self.facts["task.bundle"].encode(), np.uint8),
            **{f"inner.{name}": array for name, array in pack(whole).items()},
        }

    def _draw_anew(self) -> None:
        """All randomness of a version follows from the lab's seed and the version's number."""
        from monai.data.utils import set_rnd

        seed = int(np.random.SeedSequence([self.seed, self._versions]).generate_state(1)[0])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        if self._trainer is not None:
            set_rnd(getattr(self._trainer.data_loader, "dataset", None), seed)

    @torch.no_grad()
    def _take(self) -> None:
        """The weights of an algo without an engine, into the module that holds them for it."""
        if self._trainer is None:
            from braintorrent.tasks._bundle_algo import given_weights

            for name, value in given_weights(self.algo).items():
                self._flat.module.state_dict()[name].copy_(value)


def open_learner(options: dict[str, Any], data: Path, start: int, seed: int, where: str) -> BundleLearner:
    """The learner of a lab: `start` seeds the weights all begin from, `seed` this lab's batches; data: its folder.

    where: "FILE: task"; a relative bundle is looked for beside that file. ConfigError or DataError in one line.
    """
    chosen, data = validate(Options, options, where), data.resolve()
    folder = Path(where.removesuffix(": task")).parent / chosen.bundle
    if not folder.is_dir():
        raise ConfigError(f"{where}: bundle: {folder}: no such folder; install the bundle there by hand")
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; data of peer.toml names the folder that dataset_dir becomes")
    scratch = tempfile.TemporaryDirectory(prefix="braintorrent-bundle-", ignore_cleanup_errors=True)
    root = Path(scratch.name).resolve()
    copy(folder, root)
    pin = digest(root)
    if chosen.digest and chosen.digest != pin:
        raise ConfigError(f"{where}: digest: the bundle at {folder} is {pin}, agreed is {chosen.digest}")
    log.info("bundle %s, digest %s", folder.name, pin)
    with tracking(True), quietly():
        return _open(chosen, root, data, start, seed, where, pin, scratch)


def _open(
    chosen: Options, root: Path, data: Path, start: int, seed: int, where: str, pin: str, scratch: object
) -> BundleLearner:
    from braintorrent.tasks._bundle_workflow import config_file, in_one_line, open_workflow

    workflow = open_workflow(config_file(root, where), data, chosen.overrides, start, where)
    from braintorrent.tasks import _bundle_algo as algos  # imports ignite, which config_file has made sure of

    sys.path.insert(1, str(root))  # as monai.bundle does, for a bundle's own `scripts`
    with in_one_line(where):
        algo = algos.open_algo(chosen.algo, chosen.epochs, workflow, where)
        samples = chosen.samples or algos.training_cases(algo, where)
        return BundleLearner(
            algo, algos.network(algo), algos.stateful(workflow), epochs=chosen.epochs, samples=samples,
            score=chosen.score or algos.key_metric(algo, where), seed=seed, pin=pin, where=where,
            scratch=scratch,
        )  # fmt: skip


def _number(value: Any) -> float:
    """NaN for what is no single number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return float("nan")
