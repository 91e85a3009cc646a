"""Formats that last: a folder of an older release goes on; one of a newer release is refused with a clear word."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from braintorrent.errors import FormatError
from braintorrent.node.auditing import audit
from braintorrent.node.backup import WHAT, read_backup
from braintorrent.node.keeping import told
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.roster import Roster
from braintorrent.node.status import status
from braintorrent.storage import Ledger, StateFolder, StatePaths, load_checkpoint

RELEASES = sorted(path for path in (Path(__file__).parent / "folders").iterdir() if path.is_dir())


@pytest.fixture
def old(tmp_path, request):
    """A peer folder as a release left it: stopped inside a version, after merges with another lab."""
    folder = tmp_path / "lab-a"
    shutil.copytree(request.param, folder)
    (folder / "private").rename(folder / "state")
    for path in (folder / "state", *(folder / "state").rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)  # git keeps no modes
    return folder


every_release = pytest.mark.parametrize("old", RELEASES, indirect=True, ids=lambda path: path.name)


@every_release
async def test_a_folder_of_an_older_release_goes_on_from_its_version(old):
    with Ledger(StatePaths(old).ledger, read_only=True) as ledger:
        before, merges = ledger.newest(), len(ledger.merges())
    assert before.version.counter == 4
    assert merges == 2, "the third waits in the checkpoint"
    with (old / "peer.toml").open("a") as toml:
        toml.write("\n[stop]\nversions = 5\n")
    lab = Lab.open(old)
    assert lab.me == before.author
    assert lab.roster.names == "lab-b"
    async with asyncio.timeout(30), Node(lab) as node:
        assert status(node)["versions"] == 4
        assert node.context.pending.merge is not None, "training goes on from the checkpoint"
        assert lab.learner.state()["done"] > 0
        await node.finished()
    with Ledger(StatePaths(old).ledger, read_only=True) as ledger:
        version, merged = ledger.merges()[2]
        assert version.counter == 5
        assert lab.roster.ids <= merged.included.keys()
        assert ledger.newest().version.incarnation > before.version.incarnation
    assert [found.said for found in audit(old) if not found.whole] == []
    assert told(StatePaths(old).models, "latest")["version"] == str(ledger_version(old))


def ledger_version(folder):
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        return ledger.newest().version


@every_release
def test_the_ledger_of_an_older_release_is_whole(old):
    assert {found.what: found.whole for found in audit(old)}["chain"], "there is none yet"
    with Ledger(StatePaths(old).ledger, read_only=True) as ledger:
        assert ledger.best("score")[0] > 0.9
        assert {m.stage for m in ledger.metrics()} == {"own"}


@pytest.mark.parametrize("old", RELEASES[-1:], indirect=True, ids=lambda path: path.name)
def test_formats_of_a_newer_release_are_refused_in_words(old, tmp_path):
    state = StatePaths(old)
    (state.path / "format").write_text("2\n")
    with pytest.raises(FormatError, match=r"state: format 2; this release of braintorrent reads 1"):
        StateFolder(old)
    with sqlite3.connect(state.ledger) as ledger:
        ledger.execute("PRAGMA user_version = 3")
    with pytest.raises(FormatError, match=r"ledger format 3; this release of braintorrent reads 2"):
        Ledger(state.ledger, read_only=True)
    state.roster.write_text(json.dumps({"format": 3, "members": {}}))
    with pytest.raises(FormatError, match=r"roster format 3; this release reads"):
        Roster(state.roster)
    file = tmp_path / "backup"
    file.write_text(json.dumps({"what": WHAT, "format": 2}))
    with pytest.raises(FormatError, match=r"backup format 2; this release of braintorrent reads 1"):
        read_backup(file)


@pytest.mark.parametrize("old", RELEASES[-1:], indirect=True, ids=lambda path: path.name)
def test_a_checkpoint_of_a_newer_release_is_left_alone_with_a_word(old):
    lab = Lab.open(old)
    path, schema = lab.state.checkpoint, lab.learner.schema
    assert load_checkpoint(path, schema)[0] is not None
    tensors = load_file(path)
    meta = {**json.loads(tensors["meta"].tobytes()), "format": 2}
    tensors["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    save_file(tensors, path)  # nor need its seal be one that this release knows
    found, reason = load_checkpoint(path, schema)
    assert found is None
    assert "format 2; this release of braintorrent reads 1" in reason
    lab.state.close()
