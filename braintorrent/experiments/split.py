"""One Decathlon folder to several lab folders, and back to one for pooled training.

Lab folders hold a `dataset.json` with absolute paths: no scan is copied or linked.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braintorrent.errors import DataError

TEST = 0.25  # of a lab's cases
VALIDATION = 0.15  # of the rest
PARTS = ("training", "validation", "test")


def split(source: Path, folder: Path, names: Sequence[str], seed: int) -> dict[str, Path]:
    """Deal the labelled cases of `source` to the labs, name -> `folder/name`. Same seed, same split.

    The Decathlon's own "test" part has no labels and is left alone. DataError if a lab would get fewer
    than one case to train on, one to validate and one to test.
    """
    described, cases = read(source)
    if len(cases["training"]) < 3 * len(names):
        raise DataError(
            f"{source}: {len(cases['training'])} labelled cases are too few for {len(names)} labs; each needs 3"
        )
    shuffled = cases["training"][:]
    random.Random(seed).shuffle(shuffled)
    for position, name in enumerate(names):
        mine = shuffled[position :: len(names)]
        test = max(1, round(TEST * len(mine)))
        validation = max(1, round(VALIDATION * (len(mine) - test)))
        parts = (mine[test + validation :], mine[test : test + validation], mine[:test])
        write(folder / name, described, dict(zip(PARTS, parts, strict=True)))
    return {name: folder / name for name in names}


def pool(labs: Sequence[Path], folder: Path) -> Path:
    """All labs' cases as one lab, in `folder`."""
    opened = [read(lab) for lab in labs]
    write(folder, opened[0][0], {part: [case for _, cases in opened for case in cases[part]] for part in PARTS})
    return folder


def read(folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """What dataset.json says beside cases, and its labelled cases per part, with absolute paths."""
    path = folder / "dataset.json"
    try:
        listed = json.loads(path.read_text())
        cases = {
            part: [
                {key: str((folder / case[key]).resolve()) for key in ("image", "label")}
                for case in listed.pop(part, [])
                if not isinstance(case, str)
            ]
            for part in PARTS
        }
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a Medical Segmentation Decathlon folder has one") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not a Decathlon dataset.json ({type(error).__name__}: {error})") from None
    return listed, cases


def write(folder: Path, described: dict[str, Any], cases: dict[str, list[dict[str, str]]]) -> None:
    """A lab folder's dataset.json."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"numTraining": len(cases["training"]), "numTest": len(cases["test"])}
    (folder / "dataset.json").write_text(json.dumps({**described, **counts, **cases}, indent=1))
