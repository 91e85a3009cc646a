"""One lab on several GPUs: of the processes that torchrun started, the first runs the node, the others help it train.

All hold the same model, and each batch is cut into equal slices, one per process; torch's DistributedDataParallel
averages the gradients. So a version is what one process would have trained, but for rounding. Exceptions are losses
that do not average over cases, batch statistics (of a slice) and dropout (drawn anew for each process).

    rank 0   Leader: a learning.Learner that tells what it is asked to do, then does it
    others   follow: the same learner, doing what it is told; no lock, no socket, no node

A command is two int64, what and how many bytes follow; those are weights, safetensors or JSON, never a pickle.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from typing import Any

import numpy as np
import safetensors.numpy
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from braintorrent.contracts import Trained
from braintorrent.errors import ConfigError, Diverged, LocalError
from braintorrent.learning.contract import Learner
from braintorrent.learning.learner import TorchLearner
from braintorrent.learning.opening import processes
from braintorrent.learning.sharing import Shared, tensors
from braintorrent.weights import Weights

FOREVER = timedelta(days=3650)  # the others wait while rank 0 evaluates, merges, and waits for other labs


class Command(IntEnum):
    """What rank 0 has the others do."""

    TRAIN = 1  # begin or go on with a version; payload: the method's state
    STEP = 2  # its next step; any other command halts it
    LOAD = 3  # these weights
    RESTORE = 4  # this state of a checkpoint
    END = 5


class Leader:
    """Rank 0's learner: whatever changes the model is told to the others, then done here as well."""

    def __init__(self, learner: TorchLearner) -> None:
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def load(self, weights: Weights) -> None:
        """Take these weights, everywhere."""
        _tell(Command.LOAD, weights.buffer)
        self._learner.load(weights)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Undo `state`, everywhere."""
        _tell(Command.RESTORE, _bytes(safetensors.numpy.save(dict(state))))
        self._learner.restore(state)

    def train(self, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> Trained:
        """A version's local steps, of which each process does its share. LocalError if one of them is gone."""

        def pause() -> bool:
            if halt():
                return True
            _tell(Command.STEP)
            return False

        _tell(Command.TRAIN, _bytes(json.dumps(self._learner.method.state()).encode()))
        with _connected():
            return self._learner.train(pause, progress)

    def end(self) -> None:
        """Let the others go. Says nothing if one of them is gone."""
        with suppress(LocalError):
            _tell(Command.END)
        _part(self._learner)


def lead(learner: Learner, where: str) -> Leader:
    """Rank 0: wait until the others have opened the same learner, and lead them.

    ConfigError (`where` names the file) if the task or its batch cannot be shared out.
    """
    size = processes()[1]
    if not isinstance(learner, TorchLearner):
        raise ConfigError(f"{where}: task.kind: this one trains in one process only; start it without torchrun")
    cases = len(next(tensors(learner.task.batch(learner.seed, 0))))
    if cases % size:
        raise ConfigError(
            f"{where}: task.batch: {cases} cannot be shared evenly by {size} processes; start a number that divides it"
        )
    learner.task = Shared(learner.task)
    join()
    with _connected():
        dist.barrier()
    return Leader(learner)


def join() -> None:
    """Wait for all processes. Rank 0 comes last: what is wrong with the lab is then said, by rank 0 alone."""
    dist.init_process_group("gloo", timeout=FOREVER)


def follow(learner: TorchLearner) -> None:
    """Other ranks: do as rank 0 tells, until it is over. LocalError if rank 0 is gone without a word."""
    learner.task = Shared(learner.task)
    try:
        with _connected():
            _obey(learner)
    finally:
        _part(learner)


def _obey(learner: TorchLearner) -> None:
    dist.barrier()
    command, payload = _heard()
    while command is not Command.END:
        match command:
            case Command.LOAD:
                weights = Weights(learner.schema)
                np.copyto(weights.buffer, payload)
                learner.load(weights)
            case Command.RESTORE:
                learner.restore(safetensors.numpy.load(payload.tobytes()))
            case Command.TRAIN:
                learner.method.restore(json.loads(payload.tobytes()))
                if halting := _train_along(learner):
                    command, payload = halting
                    continue
        command, payload = _heard()


def _part(learner: TorchLearner) -> None:
    """End the process group's threads. One that outlives the interpreter aborts the process as it ends."""
    if isinstance(learner.task, Shared):
        learner.task.release()
    gc.collect()  # DistributedDataParallel holds itself
    dist.destroy_process_group()


def _train_along(learner: TorchLearner) -> tuple[Command, NDArray[np.uint8]] | None:
    """Train while told to step; the command that halted it, None if the version was finished, or diverged."""
    halting: list[tuple[Command, NDArray[np.uint8]]] = []

    def pause() -> bool:
        heard = _heard()
        if heard[0] is not Command.STEP:
            halting.append(heard)
        return bool(halting)

    with suppress(Diverged):  # here as there, and at the same step; rank 0 knows what to do
        learner.train(pause, lambda step, steps: None)
    return halting[0] if halting else None


@contextmanager
def _connected() -> Iterator[None]:
    """A lost connection as one line."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        rank = int(os.environ["RANK"])
        who = f"process 0 of this lab is gone, so process {rank}" if rank else "a process of this lab is gone, so it"
        raise LocalError(f"{who} ends; what was wrong stands above, and the last checkpoint is kept") from error


def _tell(command: Command, payload: NDArray[np.uint8] | None = None) -> None:
    with _connected():
        dist.broadcast(torch.tensor([command, 0 if payload is None else payload.size]), 0)
        if payload is not None:
            dist.broadcast(torch.from_numpy(payload), 0)


def _heard() -> tuple[Command, NDArray[np.uint8]]:
    head = torch.empty(2, dtype=torch.int64)
    dist.broadcast(head, 0)
    command, size = head.tolist()
    payload = torch.empty(size, dtype=torch.uint8)
    if size:
        dist.broadcast(payload, 0)
    return Command(command), payload.numpy()


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(bytearray(data), np.uint8)
