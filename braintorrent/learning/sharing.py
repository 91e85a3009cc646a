"""A task shared out to several processes: each does its slice of a batch, and the gradients are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from braintorrent.contracts import Task
from braintorrent.learning.opening import processes


class Shared:
    """A contracts.Task of which this process does its slice of each batch; all else is the task's own."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._rank, self._size = processes()
        self._model: DistributedDataParallel | None = None
        self._group: Any = None  # who averages: NCCL between GPUs, else the gloo group of the commands

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def batch(self, seed: int, step: int) -> Any:
        """This process's slice of batch number `step`."""
        whole = self._task.batch(seed, step)
        torch.manual_seed((torch.initial_seed() + self._rank) % 2**64)  # dropout: not the same in all slices
        return _slice(whole, self._rank, self._size)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """A scalar whose value is the mean over the processes, and whose gradient is this slice's.

        One value in all processes, so that all find at the same step that training diverged.
        """
        if self._model is None:
            cuda = next(model.parameters()).is_cuda
            self._group = dist.new_group(backend="nccl") if cuda else dist.group.WORLD
            self._model = DistributedDataParallel(model, process_group=self._group)
        loss: Tensor = self._task.loss(self._model, batch)
        # A gradient of zero for parameters the loss does not use: each process waits for the gradients of all, and
        # its ways to find unused ones do not bear a method whose loss uses them later (a pull to the last merge).
        loss = loss + 0 * sum(p.sum() for p in model.parameters() if p.requires_grad)
        mean = loss.detach() / self._size
        dist.all_reduce(mean, group=self._group)
        return loss - loss.detach() + mean

    def release(self) -> None:
        """Let the process group go: while anything here holds it, its threads live."""
        self._model = self._group = None


def tensors(batch: Any) -> Iterator[Tensor]:
    """Every tensor of a batch, which is one, or a mapping, list or tuple of batches."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from tensors(part)


def _slice(batch: Any, rank: int, size: int) -> Any:
    """The rank-th of `size` equal pieces along the first axis of every tensor [B, ...]."""
    if isinstance(batch, Tensor):
        share = len(batch) // size
        return batch[rank * share : (rank + 1) * share]
    if isinstance(batch, Mapping):
        return {key: _slice(part, rank, size) for key, part in batch.items()}
    return type(batch)(_slice(part, rank, size) for part in batch) if isinstance(batch, list | tuple) else batch
