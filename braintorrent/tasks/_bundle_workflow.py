"""From a bundle's folder to a MONAI workflow that trains on this lab's data and keeps its hands off the disk.

The bundle's configuration is run as it is, but for four things: `dataset_dir` is the lab's folder, `overrides` of
federation.toml are put in, the network is made before anything draws from the data, and handlers that load or
write checkpoints and curves do nothing, for the node keeps models and curves itself.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from braintorrent.errors import BrainTorrentError, ConfigError, LocalError
from braintorrent.tasks._plain import check_plain

CONFIGS = ("train.json", "train.yaml", "train.yml")
NEEDED = {  # id in the official layout -> what it is, for errors
    "dataset_dir": "the folder its data comes from", "network_def": "the network",
    "train#trainer": "the trainer", "validate#evaluator": "the evaluator",
}  # fmt: skip
IDLE = ("CheckpointLoader", "CheckpointSaver", "TensorBoard", "MLFlow", "ClearML")  # in a handler's class name
LISTS = ("datalist.json", "dataset.json")  # what `data_list_file_path` is set to, if the lab's folder has one
OURS = {  # id -> where its value comes from instead of `overrides`
    "bundle_root": "task.bundle", "dataset_dir": "data of peer.toml", "data_list_file_path": "data of peer.toml",
    "train::trainer::max_epochs": "task.epochs",
}  # fmt: skip


class Workflow(ConfigWorkflow):
    """A training configuration whose network is made first, from `start` alone: so it is the same in all labs."""

    def __init__(self, config: Path, start: int) -> None:
        super().__init__(str(config), logging_file=False, workflow_type="train")
        self.start = start

    def initialize(self) -> Any:
        """As MONAI's, then the network."""
        done = super().initialize()
        torch.manual_seed(self.start)
        self.parser.get_parsed_content("network_def")
        return done


class Idle:
    """Stands where a handler would load or write files: takes its arguments, and does nothing."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        pass

    def attach(self, engine: Any) -> None:
        """Nothing to hear of."""


def config_file(root: Path, where: str) -> Path:
    """The training configuration of a bundle in the official layout; ConfigError that names what is missing."""
    if find_spec("ignite") is None:
        raise ConfigError(f'{where}: kind: bundles need pytorch-ignite: pip install "braintorrent[bundle]"')
    metadata = root / "configs" / "metadata.json"
    try:
        json.loads(metadata.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{where}: bundle: no configs/metadata.json in it; a MONAI bundle has one") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: bundle: configs/metadata.json: not readable ({error})") from None
    for name in CONFIGS:
        if (path := root / "configs" / name).is_file():
            if path.suffix != ".json" and find_spec("yaml") is None:
                raise ConfigError(f'{where}: bundle: configs/{name} needs pyyaml: pip install "braintorrent[bundle]"')
            return path
    raise ConfigError(
        f"{where}: bundle: no training configuration in it; needed is one of configs/{', '.join(CONFIGS)}"
    )


def open_workflow(config: Path, data: Path, overrides: Mapping[str, Any], start: int, where: str) -> Workflow:
    """The workflow of a training configuration, nothing instantiated yet. data: the lab's folder."""
    with in_one_line(where):
        workflow = Workflow(config, start)
    parser = workflow.parser
    for key, what in NEEDED.items():
        if key not in parser:
            raise ConfigError(f"{where}: bundle: configs/{config.name} has no {key}, {what}")
    for key, value in overrides.items():
        _check_override(f"{where}: overrides: {key}", key, value, parser)
        parser[key] = value
    parser["bundle_root"], parser["dataset_dir"] = str(config.parent.parent), str(data)
    listed = [path for name in LISTS if (path := data / name).is_file()]
    if listed and "data_list_file_path" in parser:
        parser["data_list_file_path"] = str(listed[0])
    _idle(parser.get())
    return workflow


@contextmanager
def in_one_line(where: str, kind: type[LocalError] = ConfigError) -> Iterator[None]:
    """Whatever a bundle's code raises becomes a `kind` in one line: its type, and the id that was being made.

    What it says is left out, as it may name a scan or quote what is in it.
    """
    try:
        yield
    except BrainTorrentError:
        raise
    except Exception as error:  # a bundle is code from outside, and may raise anything
        cause: BaseException = error
        place = ""
        while True:
            place = _id_being_made(cause) or place
            if cause.__cause__ is None:
                break
            cause = cause.__cause__
        raise kind(
            f"{where}: bundle: {type(cause).__name__}{place and f' at {place}'}; "
            "python -m monai.bundle run, on this data, shows it in full"
        ) from None


def _id_being_made(error: BaseException) -> str:
    """The innermost id of the configuration that MONAI was at when this was raised; "" where it was at none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ids = [frame.f_locals.get("id") for frame in frames if frame.f_code.co_name == "_resolve_one_item"]
    return str(ids[-1]) if ids else ""


def _check_override(where: str, key: str, value: Any, parser: Any) -> None:
    """A federation file carries values, never code: no expression, reference, macro or class may come from it."""
    if source := OURS.get(parser.ref_resolver.normalize_id(key)):
        raise ConfigError(f"{where}: cannot be overridden, as it follows from {source}")
    if any(part.startswith("_") for part in parser.ref_resolver.split_id(key)):
        raise ConfigError(f"{where}: a name that begins with _ would choose code; change the bundle instead")
    if key not in parser:
        near = get_close_matches(key, [name for name in parser.get() if not name.startswith("_")], n=3, cutoff=0.4)
        raise ConfigError(
            f"{where}: the bundle has no such id" + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    check_plain(value, where, paths=False)


def _idle(config: Any) -> None:
    """Put Idle in the place of the handlers in a configuration that would load or write files."""
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and any(word in target.rpartition(".")[2] for word in IDLE):
            config["_target_"] = f"{Idle.__module__}.{Idle.__qualname__}"
    for item in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        _idle(item)
