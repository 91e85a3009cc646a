"""Many runs at once: each in a process of its own, so that its memory is its own and its end is nobody else's.

Runs share nothing, so a sweep is as fast as there are cores: `processes` uses this machine's, `on_ray` a cluster's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from braintorrent.errors import BrainTorrentError
from braintorrent.experiments.scenes import Script, play


@dataclass(frozen=True, slots=True)
class Job:
    """One virtual run; peers: None for the script's own number."""

    script: Script
    seed: int
    peers: int | None = None

    def __str__(self) -> str:
        return f"{self.script.path}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job: the run as `scenes.plain` has it, or why there is none."""

    job: Job
    run: dict[str, Any] | None = None
    trouble: str = ""


def perform(job: Job) -> Done:
    """Run one job here. What goes wrong in a script is its trouble, not the sweep's."""
    try:
        return Done(job, play(job.script.build(job.peers), job.seed))
    except BrainTorrentError as error:
        return Done(job, trouble=str(error))
    except Exception as error:
        return Done(job, trouble=f"{job}: {type(error).__name__}: {error}")


def processes(jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """Each job as it ends, `workers` at a time. Closing the iterator ends those under way."""
    context = get_context("spawn")  # a fork of a process with threads may hang
    waiting, running = list(reversed(jobs)), {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                mine, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_send, args=(job, theirs), daemon=True)
                process.start()
                theirs.close()  # the worker's is then the only one: it closes with the worker
                running[mine] = job, process
            for mine in wait(list(running)):
                job, process = running[mine]
                try:
                    done = mine.recv()
                except EOFError:
                    process.join()
                    done = Done(job, trouble=f"{job}: its process ended with {process.exitcode} before the run did")
                process.join()
                mine.close()
                del running[mine]
                yield done
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _send(job: Job, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who waits, who ends this process
    pipe.send(perform(job))
    pipe.close()


def on_ray(jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """The same on the Ray cluster of RAY_ADDRESS, as wide as that is, or on `workers` cores here.

    See on_ray.cluster.
    """
    from braintorrent.experiments.on_ray import cluster

    with cluster(workers) as ray:
        remote = ray.remote(max_calls=1, max_retries=0)(perform)  # a fresh process for each
        running = {remote.remote(job): job for job in jobs}
        while running:
            [ready], _ = ray.wait(list(running))
            job = running.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayError as error:
                yield Done(job, trouble=f"{job}: {str(error).splitlines()[0]}")


ENGINES: dict[str, Callable[[Sequence[Job], int], Iterator[Done]]] = {"processes": processes, "ray": on_ray}
