"""A lab that has trained: odd scans (oblique, anisotropic), a kept model that knows a ball from noise, a ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tomli_w
import torch

from braintorrent import plugins
from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.learning.inference import open_network
from braintorrent.node.lab import ensure_identity
from braintorrent.node.roster import Member
from braintorrent.node.trusting import trust
from braintorrent.protocol.messages import Announcement
from braintorrent.protocol.version import Version
from braintorrent.records import Identity, digest, sign_announcement
from braintorrent.storage import Ledger, Merged, Part, StatePaths

SHAPE = (20, 18, 13)
ZOOMS = (1.0, 1.2, 2.1)


def oblique() -> np.ndarray:
    """Voxels of ZOOMS mm, turned by 0.2 and 0.15 rad, stored in an order and direction of their own."""
    a, b = 0.2, 0.15
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(ZOOMS) @ np.diag([-1, 1, -1])
    affine[:3, 3] = (31.5, -12.25, 7.0)
    return affine


def scan(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball, 1, with a brighter core, 2, in noise."""
    centre = [n / 2 + rng.uniform(-2, 2) for n in shape]
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)))
    label = (distance < 5).astype(np.uint8) + (distance < 3)
    return (100 * label + rng.normal(50, 30, shape)).astype(np.float32), label.astype(np.uint8)


@dataclass
class Trained:
    """The lab's folder, a scan that it never saw, and a peer of its."""

    folder: Path
    unseen: Path
    peer: str


def task(dims: int, spacing: list[float] | None) -> dict[str, Any]:
    options = {
        "kind": "segmentation", "labels": ["background", "ball", "core"], "dims": dims, "network": "UNet", "batch": 4,
        "steps": 2, "network_args": {"channels": [4, 8], "strides": [2], "num_res_units": 0}, "patch": [12] * dims,
        "lr": 0.02,
    }  # fmt: skip
    return options | ({"spacing": spacing} if spacing else {})


def make(root: Path, dims: int = 3, spacing: list[float] | None = None, steps: int = 40) -> Trained:
    folder = root / "lab-a"
    _data(folder / "data")
    described = {"format": 1, "id": "tiny-federation", "task": task(dims, spacing)}
    (root / "federation.toml").write_text(tomli_w.dumps(described))
    (folder / "peer.toml").write_text(tomli_w.dumps({"name": "lab_a", "data": "data", "device": "cpu", "threads": 1}))
    unseen = root / "unseen.nii.gz"
    image = nibabel.Nifti1Image(scan(np.random.default_rng(99))[0], oblique())
    image.header["descrip"] = b"Doe^John"
    nibabel.save(image, unseen)
    peer = _history(folder)
    _train(folder, steps)
    return Trained(folder, unseen, peer)


def _data(folder: Path) -> None:
    rng, listed = np.random.default_rng(0), {}
    for part, count in {"training": 3, "validation": 1, "test": 2}.items():
        listed[part] = [{"image": f"{part}{n}.nii.gz", "label": f"{part}{n}-label.nii.gz"} for n in range(count)]
        for entry in listed[part]:
            for key, array in zip(entry, scan(rng), strict=True):
                path = folder / entry[key]
                path.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(array, oblique()), path)
    described = {"labels": {"0": "background", "1": "ball", "2": "core"}, "modality": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps(described | listed))


def _history(folder: Path) -> str:
    """Two versions, the second after a merge with one peer, another skipped; and the same once more as last merge."""
    me, state, other, third = ensure_identity(folder), StatePaths(folder), Identity.create().id, Identity.create().id
    trust(state, me, other, Member(name="lab_b"))
    with Ledger(state.ledger, identity=me) as ledger:
        incarnation = ledger.begin_incarnation(1000)
        for counter in (1, 2):
            merged = Merged(
                1e9, {me.id: Part(Version(incarnation, 1), weight=0.25), other: Part(Version(7, 3), weight=0.75)},
                {third: Part(Version(8, 1), reason="not-finite")},
            )  # fmt: skip
            ledger.publish(_announcement(me, Version(incarnation, counter)), merged if counter == 2 else None)
        ledger.merge(replace(merged, last=True))
    return other


def _announcement(me: Identity, version: Version) -> Announcement:
    return sign_announcement(me, Announcement(
        federation="tiny-federation", author=me.id, version=version, content=digest(str(version).encode()), samples=3,
        steps=2, seconds=1.0, schema=digest(b"schema"), record=digest(b"record"), record_size=10, final=False,
    ))  # fmt: skip


def _train(folder: Path, steps: int) -> None:
    """Kept models: merged, trained for `steps`; own, hardly; with lineage beside merged."""
    torch.manual_seed(0)
    federation = load_federation(federation_path(folder))
    network = open_network(federation, load_peer(folder), folder)
    opened = plugins.load("tasks", "segmentation").open_task(federation.task, folder / "data", "cpu", "task")
    module, models = network._flat.module.train(), StatePaths(folder).models
    optimiser = opened.optimiser(module.parameters())
    models.mkdir(parents=True, exist_ok=True)
    for step in range(steps):
        optimiser.zero_grad()
        opened.loss(module, opened.batch(0, step)).backward()
        optimiser.step()
        if step in (1, steps - 1):
            weights = network._flat.weights()
            name = "own" if step == 1 else "merged"
            (models / f"{name}.safetensors").write_bytes(b"".join(weights.parts))
    said = {
        "model": "merged", "version": "1000.2", "content": weights.digest, "stage": "merged", "unix": 1.7e9,
        "score": {"dice": 0.8, "dice_ball": 0.85, "dice_core": 0.75},
        "parents": [{"name": "lab_a", "id": "a" * 52, "version": "1000.2", "weight": 0.4},
                    {"name": "evil](http://x) | <b>", "id": "b" * 52, "version": "7.4", "weight": 0.6}],
    }  # fmt: skip
    (models / "merged.json").write_text(json.dumps(said))


@pytest.fixture(scope="session", params=["volumes at 1.5 mm", "slices"])
def any_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    dims, spacing = (2, None) if request.param == "slices" else (3, [1.5, 1.5, 1.5])
    return make(tmp_path_factory.mktemp("lab"), dims, spacing)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return make(tmp_path_factory.mktemp("lab"), spacing=[1.5, 1.5, 1.5])
