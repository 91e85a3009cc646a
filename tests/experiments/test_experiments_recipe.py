"""The ready peer folders of the project work as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from braintorrent.config import load_federation, load_peer
from braintorrent.experiments.processes import peer_folders
from braintorrent.experiments.recipe import make_missing
from braintorrent.node.lab import Lab

PEERS = Path(__file__).parents[2] / "peers"


def test_localhost_makes_its_scans_once_and_every_lab_opens(tmp_path):
    root = shutil.copytree(PEERS / "localhost", tmp_path / "localhost", ignore=shutil.ignore_patterns("state", "data"))
    folders = peer_folders(root)
    said: list[str] = []
    make_missing(root, folders, said.append)
    assert len(said) == 4
    make_missing(root, folders, said.append)
    assert len(said) == 4
    labs = [Lab.open(folder) for folder in folders]
    assert len({lab.start for lab in labs}) == 1
    assert len({lab.me for lab in labs}) == 4
    for lab in labs:
        lab.state.close()


@pytest.mark.parametrize(
    "path", sorted(PEERS.glob("*/*/peer.toml")), ids=lambda path: f"{path.parts[-3]}/{path.parts[-2]}"
)
def test_every_shipped_configuration_is_valid(path):
    assert load_peer(path.parent).name == path.parent.name
    assert load_federation(path.parent.parent / "federation.toml").kind == "segmentation"
