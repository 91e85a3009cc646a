"""A Task and a Method put to work with torch: local training, checkpoints, validation.

A version is `task.steps` optimiser steps. Training may be halted between two batches, stored, and continued
in another process; on the CPU the result is the same to the bit, because all randomness of a step follows
from the lab's seed and the step's number, which is part of the state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from braintorrent.contracts import Prediction, Task, Trained
from braintorrent.errors import Diverged
from braintorrent.methods import Method
from braintorrent.weights import Schema, Weights
from braintorrent.weights.modules import FlatModel


class TorchLearner:
    """A learning.Learner. `start` seeds the initial weights, `seed` this lab's batches and dropout.

    precision "bfloat16": the network computes in bfloat16 where torch.autocast thinks it safe, in training and in
    inference; what leaves it, the loss, the optimiser and the weights stay float32.
    """

    def __init__(
        self,
        task: Task,
        method: Method,
        start: int,
        seed: int,
        after_merge: Literal["reset", "keep"] = "reset",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.task, self.method, self.seed, self.after_merge = task, method, seed, after_merge
        self.samples, self.score, self.precision = task.samples, task.score, precision
        self._flat = FlatModel(method.build(task.network(start)), method.role)
        if precision == "bfloat16":
            self._flat.module.register_forward_hook(lambda _module, _inputs, outputs: _widened(outputs))
        self._optimiser = self._new_optimiser()
        self._anchored = type(method).loss is not Method.loss
        self._anchor: Weights | None = None
        self._step = 0  # since this lab began
        self._done, self._seconds, self._loss = 0, 0.0, 0.0  # of the version under way

    @property
    def schema(self) -> Schema:
        """Layout of the travelling weights."""
        return self._flat.schema

    @property
    def personal(self) -> bool:
        """Whether there are tensors that never leave this lab, and so are in no version."""
        return bool(self._flat.personal)

    def weights(self) -> Weights:
        """The current weights; on the CPU the live model's own memory."""
        return self._flat.weights()

    def load(self, weights: Weights) -> None:
        """Take these weights. The optimiser starts afresh, or keeps its state where after_merge = "keep"."""
        self._flat.load(weights)
        if self.after_merge == "reset":
            self._optimiser = self._new_optimiser()
        if self._anchored:
            self._anchor = weights.copy()

    def train(self, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> Trained:
        """Finish the version under way, or begin one; steps, seconds and mean loss are of the whole version.

        Diverged when the loss is no longer finite: such weights are worth nothing to anyone; load others. Personal
        tensors, which nobody else has, are then as they were.
        """
        steps, before = self.task.steps, {name: tensor.clone() for name, tensor in self._flat.personal.items()}
        self._flat.module.train()
        while self._done < steps:
            if halt():
                return self._report(complete=False)
            began = time.monotonic()
            loss = self._one_step()
            if not math.isfinite(loss):
                self._done, self._seconds, self._loss = 0, 0.0, 0.0
                self._optimiser = self._new_optimiser()  # its state has seen these gradients
                self._restore_personal(before)
                raise Diverged(f"training diverged: loss {loss} at step {self._step}; a lower task.lr may help")
            self._loss += loss
            self._step += 1
            self._done += 1
            self._seconds += time.monotonic() - began
            progress(self._done, steps)
        report = self._report(complete=True)
        self._done, self._seconds, self._loss = 0, 0.0, 0.0
        return report

    def evaluate(self) -> dict[str, float]:
        """The task's summary of this lab's validation cases; empty without any."""
        predictions = self.predict("validation")
        return self.task.summary(predictions) if predictions else {}

    def predict(self, part: str, *, arrays: bool = False) -> list[Prediction]:
        """The current model on each case of "training", "validation" or "test"."""
        with self._arithmetic():
            return self.task.evaluate(self._flat.module, part, arrays=arrays)

    def state(self) -> dict[str, NDArray[Any]]:
        """Optimiser, personal tensors, anchor, and where training stands. `load` the weights first, then `restore`."""
        arrays = {
            "step": np.array(self._step, np.int64), "done": np.array(self._done, np.int64),
            "seconds": np.array(self._seconds), "loss": np.array(self._loss),
        }  # fmt: skip
        for index, values in self._optimiser.state_dict()["state"].items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    arrays[f"optimiser.tensor.{index}.{key}"] = _array(value)
                elif value is not None:
                    arrays[f"optimiser.number.{index}.{key}"] = np.asarray(value)
        for name, tensor in self._flat.personal.items():
            arrays[f"personal.{name}"] = _array(tensor)
        if self._anchor is not None:
            arrays["anchor"] = self._anchor.buffer.copy()
        return arrays

    def after(self, versions: int) -> dict[str, NDArray[Any]]:
        """`state` as it is now, but at the first batch after so many versions: where no checkpoint says it better."""
        begin = {"step": versions * self.task.steps, "done": 0}
        return self.state() | {name: np.array(value, np.int64) for name, value in begin.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo `state`: continue as if never interrupted."""
        self._step, self._done = int(state["step"]), int(state["done"])
        self._seconds, self._loss = float(state["seconds"]), float(state["loss"])
        self._optimiser = self._new_optimiser()
        whole = self._optimiser.state_dict()
        found: dict[int, dict[str, Any]] = {}
        for name, array in state.items():
            match name.split(".", 3):
                case ["optimiser", kind, index, key]:
                    value = torch.from_numpy(array.copy()) if kind == "tensor" else array.item()
                    found.setdefault(int(index), {})[key] = value
        self._optimiser.load_state_dict({**whole, "state": found})
        self._restore_personal({n: torch.from_numpy(state[f"personal.{n}"]) for n in self._flat.personal})
        if "anchor" in state:
            self._anchor = Weights(self.schema)
            np.copyto(self._anchor.buffer, state["anchor"])

    @torch.no_grad()
    def _restore_personal(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self._flat.personal.items():
            tensor.copy_(values[name])

    def _one_step(self) -> float:
        model = self._flat.module
        torch.manual_seed(int(np.random.SeedSequence([self.seed, self._step]).generate_state(1, np.uint64)[0]))
        batch = self.method.transform(self.task.batch(self.seed, self._step))
        with self._arithmetic():
            loss = self.method.loss(self.task.loss(model, batch), model, self._anchor)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return float(loss.item())

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(next(self._flat.module.parameters()).device.type, torch.bfloat16)

    def _report(self, *, complete: bool) -> Trained:
        return Trained(self._done, self._seconds, self._loss / max(self._done, 1), complete)

    def _new_optimiser(self) -> torch.optim.Optimizer:
        optimiser: torch.optim.Optimizer = self.task.optimiser(self._flat.module.parameters())
        return optimiser


def _widened(outputs: Any) -> Any:
    """A network's outputs in float32: numpy has no bfloat16, and losses and metrics need the digits."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float() if outputs.dtype == torch.bfloat16 else outputs
    if isinstance(outputs, Mapping):
        return {key: _widened(value) for key, value in outputs.items()}
    return type(outputs)(map(_widened, outputs)) if type(outputs) in (list, tuple) else outputs


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy().copy()
    return array
