"""A MONAI bundle, as its authors wrote it, federates over real peers; bundles that differ in one byte do not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from tests.tasks.bundles import every_file, make_bundle, make_scans

PATIENT = {"ask_every": 0.3, "alone_after": 60.0, "linger": 60.0, "ask_deadline": 3.0}


def agree(folder: Path) -> None:
    """Write the federation.toml of a federation whose bundle lies beside it."""
    task: dict[str, Any] = {"kind": "bundle", "bundle": "bundle"}
    (folder / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "bundles-0001", "task": task}))


@pytest.mark.usefixtures("bundle_extra")
def test_a_bundle_federates_unchanged_over_three_peers(federate):
    labs = federate("lab-a", "lab-b", "lab-c", data="scans", timing=PATIENT, stop={"versions": 2})
    agree(labs.root)
    bundle = make_bundle(labs.root / "bundle", traps=True)  # torch.load and pickle.load(s) raise in every peer
    before = every_file(bundle)
    for seed, folder in enumerate(labs.folders.values()):
        make_scans(folder / "scans", seed, count=3 + seed)
    labs.start()
    for lab in labs.folders:
        assert labs.process(lab).wait(90) == 0, labs.words(lab)
    ends = {(folder / "state/models/merged.safetensors").read_bytes() for folder in labs.folders.values()}
    assert len(ends) == 1, "labs that end together end with the same model"
    for lab in labs.folders:
        last = labs.last(lab)
        assert last["versions"] == 2
        assert all(peer["merged"] for peer in last["peers"])
        assert 0 < last["metrics"]["merged"]["val_mean_dice"] <= 1
    assert every_file(bundle) == before


async def test_bundles_that_differ_in_one_byte_are_named_on_both_sides(federate):
    labs = federate("lab-a", "lab-b", data="scans", timing={**PATIENT, "alone_after": 1.0})
    for folder in labs.folders.values():
        agree(folder)
        make_bundle(folder / "bundle")
        make_scans(folder / "scans", seed=0)
    config = labs.folders["lab-b"] / "bundle" / "configs" / "train.json"
    config.write_bytes(config.read_bytes() + b"\n")
    # In this process, which has MONAI already; the test above has three of them.
    async with Node(Lab.open(labs.folders["lab-a"])), Node(Lab.open(labs.folders["lab-b"])):
        await asyncio.to_thread(told_apart, labs)


def told_apart(labs) -> None:
    def problems() -> list[str]:
        found = [labs.status(lab) for lab in labs.folders]
        return [f["peers"][0]["problem"] or "" for f in found if f and f["peers"]]

    labs.until(lambda: len(p := problems()) == 2 and all("task.bundle" in text for text in p), 60)
    labs.until(lambda: all(labs.versions(lab) >= 1 for lab in labs.folders), 60)
    assert not labs.has_merged("lab-a", "lab-b")
    assert not labs.has_merged("lab-b", "lab-a")
