"""Processes that compute for this one, and what they leave behind: nothing, however it ends."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
GONE = "a worker process ended in the middle of its work; is there memory for fewer?"


@contextmanager
def ended_in_order() -> Iterator[None]:
    """ENDINGS raise KeyboardInterrupt here, as SIGINT does, so that neither processes nor files are left behind."""
    handlers = {sign: signal.getsignal(sign) for sign in ENDINGS}
    for sign, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(sign, signal.default_int_handler)
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)


def pool(count: int, room: Path | None = None) -> ProcessPoolExecutor:
    """So many, one thread each. room: where their temporary files go; None: where this process's do."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin, initargs=(room,))


@contextmanager
def given_up(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that ends in the middle of what it does if the `with` ends by an error, or by Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="braintorrent-") as room:
        before, workers = children(), pool(count, Path(room))
        try:
            yield workers
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            end_children(but=before)
            raise
        finally:
            workers.shutdown()


def children() -> set[BaseProcess]:
    """Processes of pools that run now."""
    return set(active_children())


def end_children(but: set[BaseProcess]) -> None:
    """End those that run now, in the middle of what they do, but these."""
    for process in children() - but:
        process.terminate()


def _begin(room: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who waits, who ends this process
    os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"] = "1", "passive"
    if room is not None:
        tempfile.tempdir = str(room)
