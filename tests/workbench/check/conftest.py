"""A good tiny lab on disk, to be broken in one place at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tomli_w

from braintorrent.node.lab import ensure_identity
from braintorrent.node.roster import Member
from braintorrent.node.trusting import trust
from braintorrent.records import Identity
from braintorrent.storage import StatePaths
from braintorrent.workbench.check import check
from braintorrent.workbench.check_findings import Finding, Report

SHAPE = (12, 14, 10)
FEDERATION = {
    "format": 1, "id": "check-tests",
    "task": {
        "kind": "segmentation", "labels": ["background", "ball", "core"], "network": "UNet", "batch": 2, "steps": 3,
        "network_args": {"channels": [4, 8], "strides": [2], "num_res_units": 0}, "patch": [8, 8, 8],
    },
}  # fmt: skip
PEER = {"name": "lab-a", "data": "data", "listen": "127.0.0.1:0", "discovery": False, "disk_gib": 0.01}


@dataclass
class Lab:
    """A peer folder with a Decathlon folder inside: training0..5, validation0..1."""

    folder: Path

    def image(self, name: str) -> Path:
        return self.folder / "data" / "images" / f"{name}.nii.gz"

    def label(self, name: str) -> Path:
        return self.folder / "data" / "labels" / f"{name}.nii.gz"

    def save(self, path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)

    def change(self, path: Path, how: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
        """Rewrite the voxels of a file, or its affine."""
        stored = nibabel.load(path)
        array = how(np.asarray(stored.dataobj).copy())
        self.save(path, array, stored.affine if affine is None else affine)

    def listing(self, **keys: Any) -> None:
        path = self.folder / "data" / "dataset.json"
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | keys))

    def listed(self, part: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads((self.folder / "data" / "dataset.json").read_text())[part]
        return found

    def peer(self, **keys: Any) -> None:
        (self.folder / "peer.toml").write_text(tomli_w.dumps(PEER | keys))

    def federation(self, task: dict[str, Any] | None = None, **keys: Any) -> None:
        whole = FEDERATION | {"task": FEDERATION["task"] | (task or {})} | keys
        (self.folder / "federation.toml").write_text(tomli_w.dumps(whole))

    def check(self, *, quick: bool = True) -> Report:
        return check(self.folder, quick=quick)


def ball(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    distance = np.sqrt(sum((axis - n / 2) ** 2 for axis, n in zip(np.indices(SHAPE), SHAPE, strict=True)))
    label = (distance < 4).astype(np.uint8) + (distance < 2)
    return (100 * label + rng.normal(50, 10, SHAPE)).astype(np.float32), label.astype(np.uint8)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path / "lab-a")
    rng, parts = np.random.default_rng(0), {}
    for part, count in {"training": 6, "validation": 2}.items():
        names = [f"{part}{number}" for number in range(count)]
        parts[part] = [{"image": f"images/{n}.nii.gz", "label": f"labels/{n}.nii.gz"} for n in names]
        for name in names:
            for path, array in zip((made.image(name), made.label(name)), ball(rng), strict=True):
                made.save(path, array)
    described = {"labels": {"0": "background", "1": "ball", "2": "core"}, "modality": {"0": "MRI"}}
    made.listing(**described, **parts)
    made.peer()
    made.federation()
    paths = StatePaths(made.folder)
    trust(paths, ensure_identity(made.folder), Identity.create().id, Member(name="lab-b"))
    return made


@pytest.fixture
def only() -> Callable[[Report, str, str], Finding]:
    """The one finding of that level and kind; nothing else is an error."""

    def find(report: Report, level: str, kind: str) -> Finding:
        found = [f for f in report.findings if (f.level, f.kind) == (level, kind)]
        errors = [f for f in report.findings if f.level == "error" and f not in found]
        assert not errors
        assert len(found) == 1, report.findings
        return found[0]

    return find


@pytest.fixture
def matches() -> Callable[[str, str], bool]:
    """Whether a pattern describes the whole text, paths in front of file names left out."""

    def match(pattern: str, text: str) -> bool:
        assert re.fullmatch(rf"(\S*/)?{pattern}", text, re.DOTALL), text
        return True

    return match
