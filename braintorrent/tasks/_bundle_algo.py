"""The ClientAlgo that runs a bundle, and what a learner must know of it: its network, optimisers, cases, key metric."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sized
from importlib.metadata import entry_points
from typing import Any

import torch
from ignite.engine import Engine
from monai.fl.client import ClientAlgo, MonaiAlgo
from monai.fl.utils.constants import ExtraItems

from braintorrent.errors import ConfigError, DataError
from braintorrent.tasks._bundle_workflow import Workflow

ENTRY_POINTS = "braintorrent.algos"
"""Group of installed ClientAlgo classes. A federation file names one of these, never a module."""


def open_algo(name: str, epochs: int, workflow: Workflow, where: str) -> ClientAlgo:
    """MonaiAlgo, or the installed algo of that name, initialised on the workflow."""
    make = MonaiAlgo if name == "monai" else _installed(name, where)
    root = os.fspath(workflow.config_root_path.parent)
    algo: ClientAlgo = make(
        bundle_root=root, local_epochs=epochs, send_weight_diff=False, train_workflow=workflow,
        config_evaluate_filename=None,
    )  # fmt: skip
    try:
        algo.initialize({ExtraItems.CLIENT_NAME: "braintorrent", ExtraItems.LOGGING_FILE: False})
    except Exception:  # what a sampler says of an empty dataset tells nobody what to do
        _check_count(workflow.parser.ref_resolver.resolved_content.get("train::dataset"), where)
        raise
    if isinstance(algo, MonaiAlgo) and algo.evaluator is None:
        algo.evaluator = workflow.evaluator  # the training configuration's: it shares the trainer's network and cache
    return algo


def engine(algo: ClientAlgo) -> Engine | None:
    """The ignite engine that trains, where the algo has one."""
    trainer = getattr(algo, "trainer", None)
    return trainer if isinstance(trainer, Engine) else None


def network(algo: ClientAlgo) -> torch.nn.Module:
    """The trainer's network; for an algo without one, a module that holds a copy of the weights it gives."""
    module = getattr(engine(algo), "network", None)
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return module.module
    if isinstance(module, torch.nn.Module):
        return module
    holder = torch.nn.Module()
    holder._buffers.update({name: value.clone() for name, value in given_weights(algo).items()})  # names have dots
    return holder


def given_weights(algo: ClientAlgo) -> dict[str, torch.Tensor]:
    """What an algo says its weights are."""
    weights: Mapping[str, Any] = algo.get_weights().weights or {}
    return {name: torch.as_tensor(value).detach() for name, value in weights.items()}


def stateful(workflow: Workflow) -> dict[str, Any]:
    """Every optimiser and schedule the configuration made, by id; one that has several ids, by the first."""
    kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    found: dict[str, Any] = {}
    for name, item in sorted(workflow.parser.ref_resolver.resolved_content.items()):
        if isinstance(item, kinds) and not any(item is other for other in found.values()):
            found[name] = item
    return found


def training_cases(algo: ClientAlgo, where: str) -> int:
    """The length of the training dataset."""
    try:
        dataset = engine(algo).data_loader.dataset  # type: ignore[union-attr]
        count = len(dataset)
    except (AttributeError, TypeError):
        raise ConfigError(f"{where}: samples: needed, as the training dataset has no length") from None
    _check_count(dataset, where)
    return count


def key_metric(algo: ClientAlgo, where: str) -> str:
    """The metric by which the bundle's evaluator tells a better model."""
    name = getattr(getattr(getattr(algo, "evaluator", None), "state", None), "key_metric_name", None)
    if name is None:
        raise ConfigError(f"{where}: score: needed, as the bundle's evaluator has no key metric")
    return str(name)


def _check_count(dataset: Any, where: str) -> None:
    if isinstance(dataset, Sized) and not len(dataset):
        raise DataError(f"{where}: bundle: it finds no training case in this lab's data folder")


def _installed(name: str, where: str) -> Any:
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return entry.load()
    there = ", ".join(sorted({"monai", *(entry.name for entry in entry_points(group=ENTRY_POINTS))}))
    raise ConfigError(f"{where}: algo: no {name!r} is installed; there are: {there}")
