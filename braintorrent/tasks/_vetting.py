"""Names of classes in a federation that somebody else offers, looked up without making anything of them."""

from __future__ import annotations

import importlib
import re
from typing import Any

from braintorrent.errors import ConfigError
from braintorrent.tasks._plain import check_plain

PLACES = {"network": ["monai.networks.nets"], "loss": ["monai.losses", "torch.nn"], "optimiser": ["torch.optim"]}
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def vet(task: dict[str, Any], where: str) -> None:
    """ConfigError unless a task's classes are MONAI's or torch's own, and its values plain: none is run or loaded."""
    check_plain(task, where, paths=False)
    for key, modules in PLACES.items():
        if task.get(key):
            _vet_class(task[key], modules, f"{where}: {key}")
        if isinstance(task.get(f"{key}_args"), dict):
            from braintorrent.tasks._building import check_own

            check_own(task[f"{key}_args"], f"{where}: {key}_args")


def _vet_class(name: Any, modules: list[str], where: str) -> None:
    if not (isinstance(name, str) and _CLASS.fullmatch(name)):
        raise ConfigError(f"{where}: {str(name)[:64]!a} is not the name of a class")
    import torch

    from braintorrent.tasks._building import class_of

    base = torch.optim.Optimizer if modules == PLACES["optimiser"] else torch.nn.Module
    trouble: ConfigError | None = None
    for module in modules:
        try:
            class_of(importlib.import_module(module), name, base, where)
            return
        except ConfigError as error:
            trouble = trouble or error
    assert trouble is not None
    raise trouble
