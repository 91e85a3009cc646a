"""Tiny Decathlon folders: a bright ball in noise, labelled 1, with a brighter core, labelled 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

OPTIONS = {
    "kind": "segmentation", "labels": ["background", "ball", "core"], "network": "UNet", "batch": 2, "steps": 3,
    "network_args": {"channels": [4, 8], "strides": [2], "num_res_units": 0}, "patch": [12, 12, 12],
}  # fmt: skip


def ball(rng: np.random.Generator, shape: tuple[int, ...] = (16, 18, 14)) -> tuple[np.ndarray, np.ndarray]:
    distance = np.sqrt(sum((axis - n / 2) ** 2 for axis, n in zip(np.indices(shape), shape, strict=True)))
    label = (distance < 5).astype(np.uint8) + (distance < 3)
    return (100 * label + rng.normal(50, 10, shape)).astype(np.float32), label.astype(np.uint8)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def make_folder(folder: Path, training: int = 3, validation: int = 1, test: int = 1) -> Path:
    rng = np.random.default_rng(0)
    listed: dict[str, list[dict[str, str]]] = {}
    for part, count in {"training": training, "validation": validation, "test": test}.items():
        listed[part] = []
        for number in range(count):
            entry = {"image": f"imagesTr/{part}{number}.nii.gz", "label": f"labelsTr/{part}{number}.nii.gz"}
            for key, array in zip(entry, ball(rng), strict=True):
                save(array, folder / entry[key])
            listed[part].append(entry)
    described = {"labels": {"0": "background", "1": "ball", "2": "core"}, "modality": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps(described | listed))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data")


@pytest.fixture
def options() -> dict[str, Any]:
    return dict(OPTIONS)


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Change dataset.json of a folder."""

    def change(folder: Path, **keys: Any) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change
