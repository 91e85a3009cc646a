"""Who does labs' work for experiments/learners: `Processes` of this machine, or on_ray.OnRay's of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from braintorrent.experiments.workers import children, end_children, pool
from braintorrent.learning.opening import cores


@dataclass(frozen=True)
class Work:
    """What is to be done for a lab. Its folder and files are named apart: on another disk they have other paths."""

    do: Callable[..., Any]
    folder: Path
    options: tuple[Any, ...] = ()
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()

    def __call__(self) -> Any:
        """Do it here and now."""
        return self.do(self.folder, *self.options, *self.reads, *self.writes)


class Workers(Protocol):
    """Each lab belongs to one of them, which does that lab's work in order."""

    def submit(self, lab: int, work: Work) -> Future[Any]:
        """Ask for it, and wait for nothing. BrokenExecutor, here or from the future: the worker is gone."""

    def bring(self, model: Path) -> None:
        """Have a file that a worker wrote on this machine's disk. BrokenExecutor: it is gone with its worker."""

    def forget(self, model: Path) -> None:
        """Nobody will want that file any more."""

    def close(self, now: bool) -> None:
        """End them, and leave nothing behind. now: in the middle of what they do."""


class Processes:
    """Worker processes of this machine, which share its disk; 0: all is done here before the question returns."""

    def __init__(self, workers: int | None, labs: int) -> None:
        self._others, count = children(), min(cores() if workers is None else workers, labs)
        self._pools: list[Executor] = [pool(1) for _ in range(count)] or [_Here()]

    def submit(self, lab: int, work: Work) -> Future[Any]:
        """See Workers."""
        return self._pools[lab % len(self._pools)].submit(work)

    def bring(self, model: Path) -> None:
        """It is on this disk already."""

    def forget(self, model: Path) -> None:
        """Delete it."""
        model.unlink(missing_ok=True)

    def close(self, now: bool) -> None:
        """Not now: once they are done with what they are doing."""
        if now:
            end_children(but=self._others)
        for one in self._pools:
            one.shutdown(cancel_futures=True)


class _Here(Executor):
    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*args, **kwargs))
        return done
