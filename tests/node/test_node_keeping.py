"""What a run leaves behind: latest, best, own and merged, each with its lineage, and the curves."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from importlib.util import find_spec

import pytest
from blake3 import blake3
from safetensors.numpy import load_file

from braintorrent.node.keeping import told
from braintorrent.node.lab import Lab
from braintorrent.node.node import Node
from braintorrent.node.status import status
from braintorrent.storage import Ledger, StatePaths, write_atomically

FIELDS = ["model", "version", "content", "score", "stage", "unix", "parents"]


async def together(*labs):
    """Run them until all are finished."""
    async with asyncio.timeout(60):
        nodes = [await Node(lab).__aenter__() for lab in labs]
        try:
            await asyncio.gather(*(node.finished() for node in nodes))
        finally:
            for node in nodes:
                await node.close()


async def test_a_run_leaves_four_models_each_with_what_made_it(labs):
    a, b = labs("lab-a", "lab-b", stop={"versions": 4})
    await together(a, b)
    models = a.state.models
    said = {name: told(models, name) for name in ("latest", "best", "own", "merged")}
    for name, found in said.items():
        assert list(found) == FIELDS
        assert found["model"] == name
        assert found["content"] == blake3((models / f"{name}.safetensors").read_bytes()).hexdigest()
        assert sum(parent["weight"] for parent in found["parents"]) == pytest.approx(1.0)
        assert load_file(models / f"{name}.safetensors")["parameters"].shape == (200,)
    with Ledger(a.state.ledger, read_only=True) as ledger:
        newest, best = ledger.newest(), ledger.best("score")[0]
        last = next(merged for version, merged in ledger.merges() if version is None)
    assert said["latest"]["version"] == said["own"]["version"] == said["merged"]["version"] == str(newest.version)
    assert said["latest"]["content"] == said["own"]["content"] == newest.content
    assert said["best"]["score"] == {"score": best}
    assert [said[name]["stage"] for name in said] == ["own", "own", "own", "merged"]
    assert {p["name"]: p["weight"] for p in said["merged"]["parents"]} == {"lab-a": 0.5, "lab-b": 0.5}
    assert {p["id"]: p["version"] for p in said["merged"]["parents"]} == {
        author: str(part.version) for author, part in last.included.items()
    }
    blob = a.state.blobs / newest.content
    assert blob.samefile(models / "latest.safetensors"), "nothing is written twice"
    assert blob.samefile(models / "own.safetensors")


async def test_best_is_the_best_over_all_lives(folders):
    # Each merge takes a lab away from its own optimum, so the first version, trained alone, stays the best.
    a, b = folders("lab-a", "lab-b", task={"steps": 50, "rate": 0.5}, stop={"versions": 1})
    await together(*map(Lab.open, (a, b)))
    best = told(StatePaths(a).models, "best")
    for folder in (a, b):
        toml = folder / "peer.toml"
        toml.write_text(toml.read_text().replace("versions = 1", "versions = 3"))
    (tmp := a.parent / "federation.toml").write_text(tmp.read_text().replace("rate = 0.5", "rate = 0.01"))
    await together(*map(Lab.open, (a, b)))
    with Ledger(StatePaths(a).ledger, read_only=True) as ledger:
        assert ledger.newest().version.counter == 3
        assert ledger.best("score") == (best["score"]["score"], 2)
    assert told(StatePaths(a).models, "best") == best
    assert told(StatePaths(a).models, "latest")["version"] == str(ledger_newest(a))


def ledger_newest(folder):
    with Ledger(StatePaths(folder).ledger, read_only=True) as ledger:
        return ledger.newest().version


async def test_after_a_restart_the_last_scores_are_known(folders, until):
    (folder,) = folders("lab-a", timing={"alone_after": 0.0})
    async with asyncio.timeout(20), Node(Lab.open(folder)) as node:
        await until(lambda: status(node)["versions"] >= 1)
        node.stop()
        await node.finished()
    score = told(StatePaths(folder).models, "latest")["score"]
    async with Node(Lab.open(folder)) as node:
        assert status(node)["metrics"]["own"] == score


async def test_what_a_kill_left_of_latest_and_best_is_made_good_at_the_next_start(folders, until):
    (folder,) = folders("lab-a", timing={"alone_after": 0.0}, task={"rate": 0.5})
    state = StatePaths(folder)

    async def versions(count):
        async with asyncio.timeout(20), Node(Lab.open(folder)) as node:
            await until(lambda: status(node)["versions"] >= count)
            node.stop()
            await node.finished()

    def files():
        return {path.name: path.read_bytes() for path in state.models.iterdir() if path.stem in ("latest", "best")}

    await versions(1)
    before = files()
    await versions(told_version(state) + 1)
    now = {name: told(state.models, name) for name in ("latest", "best")}
    assert now["best"]["content"] == now["latest"]["content"] != json.loads(before["best.json"])["content"]
    other = {**now["best"], "content": "0" * 64, "score": {"score": 2.0}}
    killed = [
        {"best.json": json.dumps(other).encode()},  # said of other weights, however good
        before,  # after the ledger, before any of the files
        {"best.json": before["best.json"]},  # between the weights of best and what is said of them
    ]
    for left in killed:
        for name, content in left.items():
            write_atomically(state.models / name, content)  # not through a hard link
        async with Node(Lab.open(folder)) as node:
            assert status(node)["metrics"]["own"] == now["latest"]["score"]
            for name, said in now.items():
                content = (state.models / f"{name}.safetensors").read_bytes()
                assert told(state.models, name)["content"] == blake3(content).hexdigest() == said["content"]
                assert told(state.models, name)["score"] == said["score"]


def told_version(state):
    return int(told(state.models, "latest")["version"].split(".")[1])


async def test_full_disks_for_models_and_curves_do_no_harm(folders, small_disk, until):
    (folder,) = folders("lab-a", timing={"alone_after": 0.0}, task={"seconds": 0.05})
    state = StatePaths(folder)
    for place in (state.models, state.tensorboard):
        (small_disk / place.name).mkdir()
        place.symlink_to(small_disk / place.name)
    async with asyncio.timeout(20), Node(Lab.open(folder)) as node:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            (small_disk / "filler").write_bytes(bytes(4 << 20))
        await until(lambda: status(node)["versions"] >= 3)
        assert "make room" in status(node)["notes"]["disk"]
        assert not (state.models / "latest.safetensors").exists()
        (small_disk / "filler").unlink()
        versions = status(node)["versions"]
        await until(lambda: status(node)["versions"] >= versions + 2)
        assert "disk" not in status(node)["notes"]
        assert told(state.models, "latest")["score"], "copied, from another file system"


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
async def test_tensorboard_has_loss_scores_and_traffic_by_version(labs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    a, b = labs("lab-a", "lab-b", stop={"versions": 3})
    await together(a, b)
    curves = EventAccumulator(str(a.state.tensorboard))
    curves.Reload()
    assert [event.step for event in curves.Scalars("own/score")] == [1, 2, 3]
    assert [event.step for event in curves.Scalars("training/loss")] == [1, 2, 3]
    assert [event.step for event in curves.Scalars("merged/score")] == [3]
    with Ledger(a.state.ledger, read_only=True) as ledger:
        scores = [m.value for m in ledger.metrics() if m.stage == "own"]
    assert [event.value for event in curves.Scalars("own/score")] == pytest.approx(scores)
    assert curves.Scalars("traffic/received")[-1].value > 0
    assert curves.Scalars("traffic/sent")[-1].step == 3
    assert len(list(a.state.tensorboard.iterdir())) == 1
