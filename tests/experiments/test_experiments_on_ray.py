"""Workers that share no disk with the run they work for; and those on Ray, where that is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import tomli_w
from click.testing import CliRunner

from braintorrent.cli import simulating
from braintorrent.config import load_federation, load_peer
from braintorrent.errors import ConfigError, LocalError
from braintorrent.experiments.distant import Distant, clear, parcel
from braintorrent.experiments.learners import ENGINES, Learners
from braintorrent.experiments.working import Work
from braintorrent.protocol.policy import Policy
from braintorrent.simulation import World
from braintorrent.simulation.scenario import Attacker, Churn, Exponential, Scenario

STORY = Scenario(
    "test", "", 4, 60.0, Policy(ask_every=2.0, alone_after=2.0), version_seconds=5.0,
    churn=Churn(Exponential(20.0), Exponential(5.0), until=40.0), attackers=(Attacker(3, scale=5.0),),
)  # fmt: skip


class Apart:
    """Workers that have nothing but what reaches them as bytes, without Ray: each asks for it when it is at it."""

    def __init__(self, workers: int | None, labs: int) -> None:
        self._workers, self._contents = [Distant("apart") for _ in range(workers or labs)], dict[Path, bytes]()

    def submit(self, lab: int, work: Work) -> Future[Any]:
        done: Future[Any] = Future()
        worker, read = self._workers[lab % len(self._workers)], [self._contents[model] for model in work.reads]
        made, content = worker.perform(work, parcel(work.folder), *read)
        assert not list(worker._room.glob("*.safetensors")), "models are files only while they are worked with"
        self._contents |= dict.fromkeys(work.writes, content)
        done.set_result(made)
        return done

    def bring(self, model: Path) -> None:
        model.write_bytes(self._contents[model])

    def forget(self, model: Path) -> None:
        del self._contents[model]

    def close(self, now: bool) -> None:
        clear("apart")


def played(labs: list[Path], workers: int, engine: str) -> list[Any]:
    """What one sees of a run, and the models that it ends with."""
    with Learners(labs, STORY, 1, workers, engine) as learning:
        world = World(STORY, 1, learning=learning).run(STORY.seconds)
        world.watch.sample()
        return [world.trace.digest, [repr(peer.model) for peer in world.peers.values()], world.watch.series]


def test_a_worker_that_shares_no_disk_changes_no_byte_of_a_run(
    labs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "apart", Apart)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    assert played(labs, 2, "apart") == played(labs, 0, "processes")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_lab_s_folder_travels_without_its_scans_and_its_key(tmp_path: Path) -> None:
    federation = {"format": 1, "id": "federation-x", "task": {"kind": "standin"}, "start": {"weights": "s/w"}}
    (tmp_path / "federation.toml").write_text(tomli_w.dumps(federation))
    for name in ("s", "a/state", "a/data", "b/data"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("s/w", "a/state/key", "a/data/dataset.json", "b/data/dataset.json", "b/data/scan.nii.gz"):
        (tmp_path / name).write_text(name)
    for name in "ab":
        (tmp_path / name / "peer.toml").write_text(f'name = "{name}"\ndata = "data"\nthreads = "auto"\n')
    listed, beside = parcel(tmp_path / "a"), parcel(tmp_path / "b")
    assert listed.keys() == {"federation.toml", "peer.toml", "start.safetensors", "data/dataset.json"}
    assert beside.keys() == listed.keys() - {"data/dataset.json"}
    for name, content in beside.items():
        (tmp_path / "s" / name).write_bytes(content)
    there = load_peer(tmp_path / "s")
    assert there.data == str(tmp_path / "b" / "data")
    assert isinstance(there.threads, int)
    assert load_federation(tmp_path / "s" / "federation.toml").start.weights == "start.safetensors"
    assert (tmp_path / "s" / "start.safetensors").read_text() == "s/w"


def test_where_ray_is_not_installed_one_is_told_what_to_install(
    labs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'braintorrent\[ray\]'"):
        Learners(labs, STORY, 0, 1, "ray")


@pytest.mark.parametrize("more", [["--engine", "ray"], ["--engine", "processes", "--real", "--data", "."]])
def test_an_engine_without_scans_in_virtual_time_is_refused(more: list[str]) -> None:
    refused = CliRunner().invoke(simulating._command(lambda peers=4: STORY), more)
    assert refused.exit_code == 2
    assert "--engine is about networks that train on --data in virtual time" in refused.output


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where all temporary files go; its path is short, as Ray's sockets need it. In the end there are none."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with tempfile.TemporaryDirectory(prefix="bt-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []
        assert not actors(psutil.Process())


def actors(process: psutil.Process) -> list[psutil.Process]:
    """Ray's, of a driver."""
    return [child for child in process.children(recursive=True) if "Distant" in child.name() + str(child.cmdline())]


def test_ray_changes_no_byte_of_a_run_and_tells_of_a_worker_that_dies(labs: list[Path], room: Path) -> None:
    assert played(labs, 2, "ray") == played(labs, 0, "processes")
    with Learners(labs, STORY, 0, 1, "ray") as learning:
        [actor] = actors(psutil.Process())
        actor.kill()
        with pytest.raises(LocalError, match="worker process ended"):
            learning.train(0, learning.start, 0, Random())()


def test_what_is_wrong_with_a_lab_is_told_by_ray_as_at_home(labs: list[Path], room: Path) -> None:
    federation = labs[0].parent / "federation.toml"
    federation.write_text(federation.read_text() + f'[start]\ndigest = "{"0" * 64}"\n')
    with pytest.raises(ConfigError, match=r"^/\S+: start.digest: the initial weights here are \w+, agreed are 0{12}"):
        Learners(labs, STORY, 0, 2, "ray")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])  # as a terminal sends it; as `timeout` does
def test_who_interrupts_ray_waits_for_no_worker_and_finds_nothing_left(
    labs: list[Path], room: Path, sign: signal.Signals
) -> None:
    (labs[0].parent / "federation.toml").write_text(
        (labs[0].parent / "federation.toml").read_text().replace("0.0", "600.0")
    )
    script = """if True:
        import sys; from pathlib import Path; from random import Random
        from braintorrent.experiments.learners import Learners; from braintorrent.experiments.workers import *
        from braintorrent.simulation.scenario import Scenario; from braintorrent.protocol.policy import Policy
        labs = [Path(lab) for lab in sys.argv[1:]]
        with ended_in_order(), Learners(labs, Scenario("", "", len(labs), 60.0, Policy()), 0, 2, "ray") as learning:
            trained = learning.train(0, learning.start, 0, Random())
            print("training", flush=True)
            trained()
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, labs)], stdout=subprocess.PIPE, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"training\n"
        workers = actors(psutil.Process(run.pid))
        assert len(workers) == 2
        os.killpg(run.pid, sign)
        assert run.wait(30) == -signal.SIGINT, "in order, whatever Ray thinks of SIGTERM"
    assert psutil.wait_procs(workers, timeout=10)[1] == []
