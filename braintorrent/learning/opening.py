"""From a federation and a peer folder to the lab's Learner, at the weights all labs start from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from blake3 import blake3

from braintorrent import plugins
from braintorrent.config import Federation, Peer, StartSection, federation_path
from braintorrent.errors import ConfigError
from braintorrent.learning.contract import Learner
from braintorrent.methods import Method
from braintorrent.weights import Schema, Weights


def open_learner(
    federation: Federation, peer: Peer, folder: Path, method: Method, split: Path | None = None
) -> Learner:
    """The lab's model and data, at the agreed initial weights, or a LocalError in one line.

    A task plug-in offers either `open_task(options, data, device, where, split)` -> contracts.Task, trained here with
    torch, or `open_learner(options, data, start, seed, where)` -> learning.Learner. split: the record of which
    subjects train, validate and test; made if missing. Sets torch's threads.
    """
    path = federation_path(folder)
    plugin = plugins.load("tasks", federation.kind)
    where, data, seed = f"{path}: task", folder / peer.data, lab_seed(federation, peer.name)
    if hasattr(plugin, "open_learner"):
        if method.needs.hooks:
            raise ConfigError(f"{path}: method.name: {federation.method.name} needs a task trained with torch")
        if "torch" in sys.modules:  # the plug-in brought it; one that does without is not made to load it
            sys.modules["torch"].set_num_threads(threads_of(peer, folder))
        learner: Learner = plugin.open_learner(federation.task, data, federation.start.seed, seed, where)
    else:
        import torch

        from braintorrent.learning.learner import TorchLearner

        device = device_of(peer.device, folder)
        torch.set_num_threads(threads_of(peer, folder))
        task = plugin.open_task(federation.task, data, device, where, split)
        learner = TorchLearner(
            task, method, federation.start.seed, seed, peer.after_merge, _precision(peer, device, folder)
        )
    _start(learner, federation.start, path)
    return learner


def lab_seed(federation: Federation, name: str) -> int:
    """Seed of a lab's own randomness: its batches differ from other labs', and are the same on a second run."""
    return int.from_bytes(blake3(f"{federation.start.seed} {name}".encode()).digest(4), "little")


def read_weights(path: Path, schema: Schema) -> Weights:
    """The weights in a safetensors file of exactly this schema; ConfigError otherwise."""
    weights = Weights(schema)
    try:
        with path.open("rb") as file:
            if file.read(len(schema.header)) != schema.header:
                raise ConfigError(f"{path}: holds other tensors, or more, than the agreed network has")
            if file.readinto(weights.buffer.data) != schema.nbytes or file.read(1):
                raise ConfigError(f"{path}: has another size than its header says")
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror})") from None
    return weights


def _start(learner: Learner, start: StartSection, path: Path) -> None:
    if start.weights:
        learner.load(read_weights(path.parent / start.weights, learner.schema))
    if start.digest and (found := learner.weights().digest) != start.digest:
        raise ConfigError(
            f"{path}: start.digest: the initial weights here are {found[:12]}, agreed are {start.digest[:12]}; "
            + ("start.weights is another file" if start.weights else "torch versions may draw other numbers from "
               "one seed: agree on a version, or on a file with start.weights")
        )  # fmt: skip


def device_of(name: str, folder: Path) -> str:
    """torch's device for a name of peer.toml, or a ConfigError if this machine has none such."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if processes()[1] > 1:
        return _own_device(name, folder)
    if name == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if (name.startswith("cuda") and not cuda) or (name == "mps" and not mps):
        raise ConfigError(f'{folder / "peer.toml"}: device: {name} is not available here; "auto" takes what there is')
    return name


def _own_device(name: str, folder: Path) -> str:
    """The device of one of several processes: a GPU each, or all the processor."""
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    wanted, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if name not in ("auto", "cuda") or wanted > there:
        raise ConfigError(
            f'{folder / "peer.toml"}: device: {name} is not for {wanted} processes here: "cuda" gives each a GPU of '
            f'its own, of which there are {there}; "cpu" needs none'
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return f"cuda:{os.environ['LOCAL_RANK']}"


def _precision(peer: Peer, device: str, folder: Path) -> Literal["float32", "bfloat16"]:
    """Under "auto", bfloat16 where the GPU has it in hardware."""
    import torch

    cuda = device.startswith("cuda")
    able = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if peer.precision == "bfloat16" and not able:
        raise ConfigError(f'{folder / "peer.toml"}: precision: this GPU has no bfloat16; "auto" takes what there is')
    return "bfloat16" if peer.precision == "bfloat16" or (peer.precision == "auto" and cuda and able) else "float32"


def threads_of(peer: Peer, folder: Path) -> int:
    """Under "auto", cores divided by the peers on this host: the peer folders side by side under one federation."""
    if peer.threads != "auto":
        return peer.threads
    neighbours = len(list(folder.resolve().parent.glob("*/peer.toml")))
    return max(1, cores() // max(1, neighbours) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def processes() -> tuple[int, int]:
    """(rank, number) of this process among those that torchrun, or `accelerate launch`, started for this lab."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if "TORCHELASTIC_RUN_ID" in os.environ else (0, 1)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
