"""A member publishes finite but absurd weights: whoever merged them undoes it, says so, and goes on."""

from __future__ import annotations

import asyncio
import json

import nibabel
import numpy as np
import tomli_w

from braintorrent.experiments.processes import introduce
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.restoring import load_version
from braintorrent.node.status import status

TASK = {
    "kind": "segmentation", "labels": ["background", "organ"], "channels": 1, "dims": 2, "network": "UNet",
    "network_args": {"channels": [4, 8], "strides": [2]}, "patch": [8, 8], "batch": 1, "steps": 2,
}  # fmt: skip
TIMING = {"ask_every": 0.2, "alone_after": 3.0, "linger": 1.0}


class Liar:
    """A lab's learner whose published weights are 1e30, all of them."""

    def __init__(self, learner) -> None:
        self._learner = learner

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def weights(self):
        absurd = self._learner.weights().copy()
        absurd.buffer.view(np.float32)[:] = 1e30
        return absurd

    def load(self, weights) -> None:
        """It cares for nobody else's."""


def make_lab(root, name) -> None:
    data = root / name / "data"
    data.mkdir(parents=True)
    label = np.zeros((12, 12, 4), np.uint8)
    label[3:8, 3:8] = 1
    listed = {}
    for part in ("training", "validation", "test"):  # a subject each
        case = {kind: f"./{part}-{kind}.nii.gz" for kind in ("image", "label")}
        for kind, array in (("image", label * 50.0), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), data / case[kind])
        listed[part] = [case]
    (data / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "organ"}, **listed}))
    peer = {"name": name, "data": "data", "listen": "127.0.0.1:0", "timing": TIMING}
    (root / name / "peer.toml").write_text(tomli_w.dumps(peer))


async def until(condition) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.1)


async def test_absurd_weights_are_undone_named_and_survived(tmp_path):
    (tmp_path / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "testing-poison", "task": TASK}))
    folders = [tmp_path / name for name in ("honest", "liar")]
    for folder in folders:
        make_lab(tmp_path, folder.name)
    introduce(folders)
    honest, liar = (Lab.open(folder) for folder in folders)
    liar.learner = Liar(liar.learner)
    async with asyncio.timeout(60), Node(honest) as node, Node(liar):
        await until(lambda: "diverged" in status(node)["peers"][0]["refused"].values())
        undone = status(node)["versions"]
        await until(lambda: status(node)["versions"] >= undone + 2)  # it goes on, and publishes
        node.stop()
        await node.finished()
        # What the others get is what counts: the live weights may be those of a merge not yet found absurd.
        newest = node.context.machine.newest
        await node.context.in_worker(load_version, honest, node.context.blobs, newest.content)
        largest = np.abs(honest.learner.weights().buffer.view(np.float32)).max()
    assert np.isfinite(largest)
    assert largest < 1e3
