"""Real learners in virtual time, and the paper's table made with them: small ones, but all of it is the node's code."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from random import Random

import nibabel
import numpy as np
import psutil
import pytest

from braintorrent.config import federation_path, load_federation, load_peer
from braintorrent.errors import LocalError
from braintorrent.experiments import paper, paper_cell
from braintorrent.experiments.cells import data_digest
from braintorrent.experiments.learners import Learners, _facts, _train
from braintorrent.experiments.scenes import play
from braintorrent.learning import open_learner
from braintorrent.learning.baseline import train_alone
from braintorrent.learning.opening import read_weights
from braintorrent.methods import Method
from braintorrent.protocol.policy import Policy
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Attacker, Churn, Exponential, Scenario

LABS = 4
STORY = Scenario(
    "test", "", LABS, 60.0, Policy(ask_every=2.0, alone_after=2.0), version_seconds=5.0,
    churn=Churn(Exponential(20.0), Exponential(5.0), until=40.0), attackers=(Attacker(3, scale=5.0),),
)  # fmt: skip
SIDE = 16  # voxels of a tiny scan


def scans(folder: Path, cases: int) -> Path:
    """Bright cubes to be found in noise, somewhere else in each case."""
    rng, listed = np.random.default_rng(0), []
    for number in range(cases):
        label = np.zeros((SIDE, SIDE, SIDE), np.uint8)
        x, y, z = rng.integers(0, SIDE // 2, 3)
        label[x : x + 8, y : y + 8, z : z + 8] = 1
        entry = {"image": f"i/{number}.nii.gz", "label": f"l/{number}.nii.gz"}
        for key, array in (("image", label + 0.2 * rng.standard_normal(label.shape)), ("label", label)):
            (folder / entry[key]).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), np.eye(4)), folder / entry[key])
        listed.append(entry)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "cube"}, "training": listed}))
    return folder


# ----------------------------------------------------------------- in the simulator


def test_the_number_of_workers_changes_no_byte_of_a_run(labs: list[Path]) -> None:
    found = []
    for workers in (0, 2, 2):
        with Learners(labs, STORY, 1, workers) as learning:
            world = World(STORY, 1, learning=learning).run(STORY.seconds)
            world.watch.sample()
            kinds = {entry[2] for entry in world.trace.entries}
            found.append((world.trace.digest, [repr(peer.model) for peer in world.peers.values()], world.watch.series))
            del world
            gc.collect()
            for lab in range(LABS):
                learning._on(lab, _facts).result()  # whatever a lab that crashed had asked for is done as well
            assert learning._count > 8 * LABS
            assert list(Path(learning._room.name).iterdir()) == [learning.start.path]  # models nobody knows are deleted
    assert found[0] == found[1] == found[2]
    assert {"crash", "merge", "publish"} <= kinds
    assert len(set(found[0][1])) > 1
    series = found[0][2]
    assert 0 < series.worst[0] <= series.mean[0] < 1
    assert series.consensus[0] > 0


def test_merges_are_the_paper_s_and_an_attacker_s_model_is_moved(labs: list[Path]) -> None:
    with Learners(labs, STORY, 0) as learning:
        schema = open_learner(load_federation(federation_path(labs[0])), load_peer(labs[0]), labs[0], Method()).schema
        one, two = (learning.train(lab, learning.start, 0, Random())()[0] for lab in (0, 1))
        models = [read_weights(model.path, schema).view("parameters").copy() for model in (one, two)]
        merged = learning.merge(0, one, [("b", 30, two)])  # the stand-in claims 10 cases
        assert merged.made.score is None
        found = read_weights(merged.path, schema).view("parameters")
        np.testing.assert_allclose(found, (10 * models[0] + 30 * models[1]) / 40, rtol=1e-5)
        adopted = learning.merge(0, None, [("b", 30, two)])
        assert repr(adopted) == repr(two)
        moved = learning.poison(two, 5.0)
        np.testing.assert_allclose(read_weights(moved.path, schema).view("parameters"), models[1] + 5, rtol=1e-6)


@pytest.mark.parametrize("noticed", [False, True])
def test_a_worker_that_dies_is_told_in_words(labs: list[Path], noticed: bool) -> None:
    with Learners(labs, STORY, 0, workers=1) as learning:
        [pool] = learning._workers._pools  # type: ignore[attr-defined]
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        if noticed:
            with pytest.raises(BrokenProcessPool):
                pool.submit(os.getpid).result()
        with pytest.raises(LocalError, match="worker process ended"):
            learning.train(0, learning.start, 0, Random())()


def test_whoever_is_interrupted_waits_for_no_worker(labs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text((tmp_path / "federation.toml").read_text().replace("0.0", "60.0"))
    learning = Learners(labs, STORY, 0, workers=1)
    [worker] = learning._workers._pools[0]._processes.values()  # type: ignore[attr-defined]
    made = learning._model(0, _train, 0, learning.start.path)._made
    while not made.running():
        time.sleep(0.01)
    began = time.monotonic()
    learning.__exit__(KeyboardInterrupt, None, None)
    assert time.monotonic() - began < 30
    assert not worker.is_alive()
    assert not Path(learning._room.name).exists()


# ----------------------------------------------------------------- with torch, and the table


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The parts of one cell: data, and where they lie."""
    root = tmp_path_factory.mktemp("paper")
    data, out = scans(root / "cubes", 12), root / "out"
    (out / "cells").mkdir(parents=True)
    of = {"data": data_digest(data), "device": "cpu"}
    for way in paper_cell.WAYS:
        paper_cell.perform(paper_cell.Job(2, "uneven", 0, way, 2), data, out / "cells", of)
    return data, out


def test_the_table_has_every_row_and_goes_on_where_it_was_interrupted(
    cells: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, out = cells
    made = {path.name: path.read_bytes() for path in (out / "cells").iterdir()}
    assert len(made) == len(paper_cell.WAYS)
    (out / "cells" / "uneven-2-labs-seed-0-fedavg.json").unlink()
    call = [str(data), str(out), "--seeds", "0", "--splits", "uneven", "--device", "cpu", "--workers", "1"]
    with pytest.raises(SystemExit, match=r"uneven-9-labs-seed-0-local: .* too few for 9 labs"):
        paper.main([*call, "--labs", "2,9", "--versions", "2"])
    shown = capsys.readouterr().out
    assert "of 5: uneven-2-labs-seed-0-fedavg" in shown
    assert "BrainTorrent peers as they end" in shown
    for name, content in made.items():
        before, after = json.loads(content), json.loads((out / "cells" / name).read_text())
        assert before | {"seconds": 0} == after | {"seconds": 0}  # made again in another process: the same scores
    told = json.loads((out / "paper.json").read_text())["cells"]
    scores = {row: of for cell in told for row, of in cell["scores"].items()}
    assert {row: len(of) for row, of in scores.items()} == {
        "local": 2, "fedavg": 1, "own": 2, "braintorrent": 2, "aggregate": 1, "pooled": 1
    }  # fmt: skip
    assert all(0 < score < 1 for of in scores.values() for score in of)
    assert len(set(scores["braintorrent"])) == 1  # who end together end with one model: the aggregate
    assert scores["braintorrent"][0] == pytest.approx(scores["aggregate"][0], abs=0.02)
    assert "±" not in shown, "of one seed there is no spread"
    again = [str(data), str(out), "--seeds", "0", "--splits", "uneven", "--labs", "2", "--versions"]
    with pytest.raises(SystemExit, match=r"seed-0-peers.json: of versions 2, not 3; move it away"):
        paper.main([*again, "3", "--device", "cpu"])
    with pytest.raises(SystemExit, match=r"of device cpu, not cuda; move it away"):
        paper.main([*again, "2", "--device", "cuda"])
    others = scans(tmp_path / "others", 13)
    with pytest.raises(SystemExit, match=rf"of data {data_digest(data)}, not {data_digest(others)}; move it away"):
        paper.main([str(others), *again[1:], "2", "--device", "cpu"])


def test_who_ends_the_table_in_its_middle_finds_no_process_and_no_file(
    cells: tuple[Path, Path], tmp_path: Path
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    command = [sys.executable, "-m", "braintorrent.experiments.paper", str(cells[0]), str(tmp_path / "out")]
    options = ["--labs", "2", "--seeds", "0", "--splits", "even", "--versions", "5000", "--device", "cpu"]
    with subprocess.Popen(
        [*command, *options, "--workers", "1"], env={**os.environ, "TMPDIR": str(room)}, stderr=subprocess.PIPE
    ) as run:
        deadline = time.monotonic() + 60
        while not list(room.glob("*/*/labs/lab-b/peer.toml")):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        workers = psutil.Process(run.pid).children(recursive=True)
        assert workers
        run.send_signal(signal.SIGINT)
        assert b"the same command goes on" in run.communicate(timeout=30)[1]
        assert run.returncode == 1
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert list(room.iterdir()) == []


def test_a_lab_trains_as_it_would_by_itself(cells: tuple[Path, Path], tmp_path: Path) -> None:
    job = paper_cell.Job(2, "even", 0, "peers", 2)
    folders = paper_cell._lay_out(job, cells[0], tmp_path / "labs", "cpu")
    alone = paper_cell._open(folders[1])
    train_alone(alone, 2)
    with Learners(folders, paper_cell.setting(2, 2), 0) as learning:
        first, _ = learning.train(1, learning.start, 0, Random())()
        second, score = learning.train(1, first, 1, Random())()
        assert repr(second) == alone.weights().digest
        assert score == alone.evaluate()["dice"]


def test_a_scenario_learns_from_scans_in_virtual_time(tmp_path: Path) -> None:
    story = replace(STORY, peers=2, seconds=16.0, within=1.0, churn=None, attackers=())
    run = play(story, 0, data=scans(tmp_path / "cubes", 8))
    assert run["figures"]["distance_to_optimum"] is None
    assert 0 < run["figures"]["worst_score"] <= run["figures"]["mean_score"] < 1
    assert run["figures"]["versions_published"] == 4
    assert run["scenario"]["model_bytes"] > 50_000  # of the network, so that it takes its time on the lines


def test_who_ends_a_scenario_on_scans_finds_no_model_left(tmp_path: Path) -> None:
    room, steady = tmp_path / "room", Path(__file__).parents[2] / "scenarios" / "steady.py"
    room.mkdir()
    command = [sys.executable, str(steady), "--peers", "2", "--data", str(scans(tmp_path / "cubes", 8))]
    with subprocess.Popen(
        [*command, "--workers", "1", "--json"], env={**os.environ, "TMPDIR": str(room)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list(room.glob("braintorrent-models-*/*.safetensors"))) < 2:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        shown, words = run.communicate(timeout=30)
    assert (run.returncode, shown) == (130, b"")
    assert b"steady was interrupted; nothing of it is kept" in words
    assert list(room.iterdir()) == []
