"""Ready peer folders whose scans are made on first use, from a `recipe.toml` beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from braintorrent.config import Section, load_peer, read_toml, validate
from braintorrent.experiments.anatomy import make_labs


class Recipe(Section):
    """recipe.toml: what to make, in `data/NAME` beside the peer folders."""

    anatomy: Literal["mni152"] = Field(description="the template in the nilearn wheel, deformed; one scanner per lab")
    seed: int = Field(0, ge=0, description="same seed, same scans")


def make_missing(root: Path, folders: list[Path], say: Callable[[str], None]) -> None:
    """Make the labs' scans if `root` has a recipe and they are not there yet; ConfigError if it is wrong."""
    path = root / "recipe.toml"
    if not path.exists() or all((folder / load_peer(folder).data / "dataset.json").exists() for folder in folders):
        return
    recipe = validate(Recipe, read_toml(path), str(path))
    make_labs(root / "data", [folder.name for folder in folders], recipe.seed, progress=say)
