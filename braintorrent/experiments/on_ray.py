"""Workers on the machines of a Ray cluster, for experiments/learners; and the cluster, for them and for sweeps."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from braintorrent.errors import ConfigError
from braintorrent.experiments.distant import Distant, clear, parcel
from braintorrent.experiments.working import Work
from braintorrent.learning.opening import cores

ADDRESS = "RAY_ADDRESS"  # of a cluster, as Ray itself reads it
CLEARED = 30.0  # seconds that each machine has to delete what is left of a run
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}  # before torch is imported


@contextmanager
def cluster(here: int) -> Iterator[Any]:
    """Ray, on the cluster of RAY_ADDRESS, or else on so many cores here, of which nothing is left in the end.

    BrainTorrent must be installed on every machine of the cluster. ConfigError where Ray is not installed here.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'braintorrent[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what runs here is nobody else's business
    with _folder("ray-", "/tmp" if sys.platform == "darwin" else None) as room:  # a socket's path must be short
        local = {"address": "local", "num_cpus": here, "include_dashboard": False, "_temp_dir": room}
        try:
            _join(ray, **({} if ADDRESS in os.environ else local))
            yield ray
        finally:
            ray.shutdown()


def _join(ray: Any, **options: Any) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except OSError as error:
        raise ConfigError(f"Ray neither starts here nor answers at {ADDRESS}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's own would not end this process in order


@contextmanager
def _folder(prefix: str, place: str | None = None) -> Iterator[str]:
    """One of which nothing is left, though processes that are about to end may still write there."""
    folder = mkdtemp(prefix=prefix, dir=place)
    try:
        yield folder
    finally:
        clear(folder)


class OnRay:
    """Workers: an actor each, one core and one thread wide, as many as the cluster has cores for.

    Models lie in Ray's object store, and travel from there to whoever reads them.
    """

    def __init__(self, workers: int | None, labs: int) -> None:
        most = labs if workers is None else max(1, min(workers, labs))
        self._contents, self._parcels, self._actors = dict[Path, Any](), dict[Path, Any](), list[Any]()
        with ExitStack() as end:
            self._room = Path(end.enter_context(_folder("braintorrent-"))).name
            self._ray = end.enter_context(cluster(min(most, cores()) if workers is None else most))
            if ADDRESS in os.environ:  # its processes go on, which here end with Ray
                end.callback(self._leave)
            actor = self._ray.remote(num_cpus=1, runtime_env={"env_vars": ENVIRONMENT})(Distant)
            there = int(self._ray.cluster_resources().get("CPU", 1))
            self._actors += [actor.remote(self._room) for _ in range(min(most, there))]
            self._end = end.pop_all()

    def submit(self, lab: int, work: Work) -> Future[Any]:
        """See Workers. Ray itself waits for what the work reads."""
        if work.folder not in self._parcels:
            self._parcels[work.folder] = self._ray.put(parcel(work.folder))
        actor, read = self._actors[lab % len(self._actors)], [self._contents[model] for model in work.reads]
        done, content = actor.perform.options(num_returns=2).remote(work, self._parcels[work.folder], *read)
        self._contents |= dict.fromkeys(work.writes, content)
        told: Future[Any] = Future()
        done.future().add_done_callback(partial(self._tell, told))
        return told

    def bring(self, model: Path) -> None:
        """Write it, if it is not here."""
        if not model.exists():
            with self._in_words():
                model.write_bytes(self._ray.get(self._contents[model]))

    def forget(self, model: Path) -> None:
        """Let Ray, and this disk, have no more of it."""
        self._contents.pop(model, None)
        model.unlink(missing_ok=True)

    def close(self, now: bool) -> None:
        """At once in any case: whatever is still worked on, nobody waits for."""
        self._end.close()

    def _leave(self) -> None:
        """Have each machine delete what this run had there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        for actor in self._actors:
            self._ray.kill(actor)
        machines = [On(node["NodeID"], soft=False) for node in self._ray.nodes() if node["Alive"]]
        task = self._ray.remote(num_cpus=0)(clear)
        cleared = [task.options(scheduling_strategy=machine).remote(self._room) for machine in machines]
        self._ray.wait(cleared, num_returns=len(cleared), timeout=CLEARED)

    def _tell(self, told: Future[Any], done: Future[Any]) -> None:
        try:
            with self._in_words():
                told.set_result(done.result())
        except Exception as error:
            told.set_exception(error)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What went wrong in a worker as it was there, not as Ray tells it."""
        try:
            yield
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise BrokenExecutor(str(error)) from error
