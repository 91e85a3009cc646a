"""What options name by class: a network, a loss, an optimiser, with arguments from a TOML table.

Whatever a class does not accept is a ConfigError that names the key; nothing is guessed later, in training.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch

from braintorrent.errors import ConfigError

FETCHES = re.compile("pretrained|url", re.IGNORECASE)
NAMES_FILE = re.compile("checkpoint|path|^weights$", re.IGNORECASE)


def class_of(module: ModuleType, name: str, base: type, where: str) -> Any:
    """The class `name` of a module, a kind of `base`; ConfigError suggests others."""
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        every = sorted(n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base))
        near = get_close_matches(name, every, n=3, cutoff=0.5)
        meant = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(every[:5])} ..."
        raise ConfigError(f"{where}: no class {name!r} in {module.__name__}; {meant}")
    return cls


def build(make: Callable[..., Any], arguments: Mapping[str, Any], where: str, signature: Any = None) -> Any:
    """make(**arguments); ConfigError for an argument that it, or `signature`, does not take, or a value it refuses."""
    check_own(arguments, where)
    accepted = inspect.signature(signature or make).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        for key in arguments:
            if key not in accepted:
                raise ConfigError(f"{where}: unknown argument {key!r}; allowed: {', '.join(accepted)}")
    try:
        return make(**arguments)
    except Exception as error:  # a class from outside may refuse its arguments with anything
        raise ConfigError(f"{where}: {first_line(error)}") from None


def check_own(arguments: Mapping[str, Any], where: str) -> None:
    """ConfigError for an argument by which a class would download a file, or unpickle one."""
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            check_own(value, f"{where}.{key}")
        # drop_path_rate = 0.1 and use_checkpoint = true, of gradients, name no file.
        number = isinstance(value, int | float)
        if (FETCHES.search(key) or (NAMES_FILE.search(key) and not number)) and value:
            raise ConfigError(f"{where}: {key}: would load a file; start.weights names trained weights to begin from")


def taken(cls: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the known arguments that a class takes."""
    accepted = inspect.signature(cls).parameters
    return {key: value for key, value in known.items() if key in accepted}


def make_optimiser(options: Any, parameters: Any, where: str) -> torch.optim.Optimizer:
    """The optimiser of `parameters`; options: optimiser (a class of torch.optim), lr, optimiser_args."""
    cls = class_of(torch.optim, options.optimiser, torch.optim.Optimizer, f"{where}: optimiser")
    parameters = list(parameters)
    arguments = {"lr": options.lr, **_fused(cls, parameters, options.optimiser_args), **options.optimiser_args}
    optimiser: torch.optim.Optimizer = build(
        lambda **kw: cls(parameters, **kw), arguments, f"{where}: optimiser_args", signature=cls
    )
    return optimiser


def _fused(cls: Any, parameters: list[torch.Tensor], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """All tensors in one call: on a CPU torch's own choice is a loop in Python, a twentieth of a small net's step."""
    other = chosen.keys() & {"fused", "foreach", "differentiable", "capturable"}
    able = all(one.device.type == "cpu" and one.is_floating_point() for one in parameters)
    return taken(cls, {"fused": True}) if able and not other else {}


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
