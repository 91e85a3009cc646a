"""A lab's network outside a run: a kept model applied, measured, exported. Reads no scan before it is asked for.

Computes in float32 whatever precision training takes: the figures, the segmentations and an exported bundle agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from braintorrent import plugins
from braintorrent.config import Federation, Peer, federation_path
from braintorrent.errors import ConfigError
from braintorrent.learning.opening import device_of, threads_of
from braintorrent.methods import Method
from braintorrent.weights import Schema, Weights
from braintorrent.weights.modules import FlatModel


class Network:
    """The federation's network on this lab's device, and its task. `load` weights before use."""

    def __init__(self, task: Any, method: Method, start: int, where: str) -> None:
        self.task = task
        self._start, self._where = start, where
        self._flat = FlatModel(method.build(task.network(start)), method.role)
        if self._flat.personal:
            first = next(iter(self._flat.personal))
            raise ConfigError(
                f"{where}: method.name: this method keeps tensors of this lab's own ({first}, ...) out of the kept "
                "models, so that they are not whole; evaluate, predict and export need whole ones"
            )

    @property
    def schema(self) -> Schema:
        """Layout of the weights it takes."""
        return self._flat.schema

    @property
    def module(self) -> torch.nn.Module:
        """The network, in evaluation mode."""
        return self._flat.module.eval()

    def load(self, weights: Weights) -> None:
        """Take these weights."""
        self._flat.load(weights)

    def plain(self) -> torch.nn.Module:
        """The task's own network, a copy with these weights; ConfigError if the method made it another."""
        network: torch.nn.Module = self.task.network(self._start).cpu()
        try:
            network.load_state_dict(self.module.state_dict())
        except RuntimeError:
            raise ConfigError(
                f"{self._where}: method.name: this method trains another network than task.network says; no bundle can"
            ) from None
        return network


def open_network(federation: Federation, peer: Peer, folder: Path, split: Path | None = None) -> Network:
    """The network of a lab folder; ConfigError where the task has none to show. Sets torch's threads."""
    path = federation_path(folder)
    plugin = plugins.load("tasks", federation.kind)
    if not hasattr(plugin, "open_task"):
        raise ConfigError(f"{path}: task.kind: {federation.kind} trains by itself and has no network to show here")
    device = device_of(peer.device, folder)
    torch.set_num_threads(threads_of(peer, folder))
    where, data = f"{path}: task", folder / peer.data
    make = getattr(plugin, "open_inference", plugin.open_task)
    task = make(federation.task, data, device, where, split)
    method = plugins.load("methods", federation.method.name).create(**federation.method.options)
    return Network(task, method, federation.start.seed, str(path))
