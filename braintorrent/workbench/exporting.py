"""A lab's model as a MONAI bundle, for `python -m monai.bundle run` and every tool that reads bundles.

    configs/metadata.json   configs/inference.json   models/model.safetensors   docs/README.md   docs/model_card.json

README.md is the model card. A new folder is written beside its name and renamed: it is there whole, or not at all.
With `force` these files take the place of the same in an earlier bundle; data, results and all else there stay.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch

from braintorrent.errors import ConfigError
from braintorrent.learning.inference import open_network
from braintorrent.storage.files import temporary_path
from braintorrent.workbench.card import Card, describe, markdown
from braintorrent.workbench.contents import contents, warning
from braintorrent.workbench.kept import find, load, open_folder

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def export(
    folder: Path, out: Path, model: str | None = None, *, force: bool = False, anyway: bool = False
) -> Card:  # fmt: skip
    """Write the bundle of a kept model to the folder `out`, and return its card.

    ConfigError if the task has no bundle, something is at `out` (with `force`: something that is no bundle), or the
    model contains a lab revoked here (unless `anyway`).
    """
    out = out.resolve()
    _check_target(out, force)
    lab = open_folder(folder)
    wanted = find(lab, model)
    network = open_network(lab.federation, lab.peer, folder, lab.state.split)
    if not hasattr(network.task, "bundle"):
        raise ConfigError(f"{folder}: task.kind: {lab.federation.kind} has no MONAI bundle to export")
    kept = load(wanted, network)
    inside = contents(lab, kept)
    if inside.revoked and not anyway:
        raise ConfigError(f"{folder}: {warning(lab, kept, inside.revoked)}; --anyway exports it all the same")
    module, files = network.plain(), network.task.bundle()
    card = describe(lab, kept, sum(parameter.numel() for parameter in module.parameters()), inside)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary_path(out)
    try:
        _json(draft / "configs" / "inference.json", files["inference"])
        _json(draft / "configs" / "metadata.json", _metadata(card, files))
        _json(draft / "docs" / "model_card.json", card)
        (draft / "docs" / "README.md").write_text(f"{markdown(card)}\n{_usage()}")
        (draft / "models").mkdir()
        safetensors.torch.save_model(module, str(draft / "models" / "model.safetensors"))
        _put(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return card


def _check_target(out: Path, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise ConfigError(f"{out}: is there already; --force replaces it")
    if not (out / "configs" / "metadata.json").is_file():
        raise ConfigError(f"{out}: no bundle, so it is not replaced; choose another folder")


def _put(draft: Path, out: Path) -> None:
    """The new folder in its place, or file by file into the one that is there."""
    if not out.exists():
        draft.rename(out)
        return
    for part in ("models", "configs", "docs"):
        (out / part).mkdir(exist_ok=True)
        for file in (draft / part).iterdir():
            file.replace(out / part / file.name)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4) + "\n")


def _metadata(card: Card, files: dict[str, Any]) -> dict[str, Any]:
    """configs/metadata.json, as MONAI's schema has it."""
    needed = {package: version(package) for package in ("safetensors", "nibabel")}
    with suppress(ModuleNotFoundError):
        needed["pytorch-ignite"] = version("pytorch-ignite")
    labs = sorted({parent["name"] for parent in card["parents"]} | {card["lab"]})
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"{card['model']['name']} {card['model']['version']}, exported {card['written']}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": needed,
        "name": f"{card['federation']} {card['model']['name']}",
        "task": files["task"],
        "description": f"{files['task']}, learned together by labs that exchange models and no scans (BrainTorrent).",
        "authors": f"The labs {', '.join(labs)} of federation {card['federation']}",
        "copyright": "The labs that trained it",
        "intended_use": f"{card['intended_use']} {card['limits']}",
        "references": ["Roy et al., BrainTorrent, https://arxiv.org/abs/1905.06731"],
        "network_data_format": files["network_data_format"],
    }


def _usage() -> str:
    return """## How to run it

    pip install monai nibabel safetensors fire pytorch-ignite
    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir FOLDER_OF_NIFTI --output_dir FOLDER

Each `NAME.nii.gz` becomes `NAME_seg.nii.gz`, on the grid of the scan. For other files give them by name:
`--datalist "['a.nii.gz','b.mha']"`.
"""
