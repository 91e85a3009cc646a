"""TensorBoard: metrics as event files in `state/tensorboard/`, where tensorboard is installed. Nothing without it.

One thread of its own, which also imports tensorboard; torch is not needed for it. It is only a display: what goes
wrong in it is said once and hinders nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

log = logging.getLogger("braintorrent.node")


class Board:
    """Scalars by version, for people. Any thread may call; nobody waits for the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._on = find_spec("tensorboard") is not None
        self._thread = ThreadPoolExecutor(1, "tensorboard")
        self._file: BinaryIO | None = None
        self._said = False

    def add(self, version: int, values: Mapping[str, float]) -> None:
        """Values by tag ("own/dice") at the counter of a version."""
        if self._on:
            self._thread.submit(self._add, time.time(), version, dict(values))

    def close(self) -> None:
        """Write what is left. Idempotent."""
        self._thread.shutdown()
        self._drop()

    def _add(self, unix: float, version: int, values: Mapping[str, float]) -> None:
        try:
            from tensorboard.compat.proto.summary_pb2 import Summary

            tagged = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._write(unix, step=version, summary=Summary(value=tagged))
        except OSError as error:  # a full disk, say: the next file begins when there is room
            self._drop()
            self._say(error)
        except Exception as error:  # another release of a package that only draws curves
            self._on = False
            self._say(error)

    def _write(self, unix: float, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            self.folder.mkdir(exist_ok=True, mode=0o700)
            name = f"events.out.tfevents.{time.time_ns() // 10**6}.{os.getpid()}"
            self._file = (self.folder / name).open("xb")
            RecordWriter(self._file).write(Event(wall_time=unix, file_version="brain.Event:2").SerializeToString())
        RecordWriter(self._file).write(Event(wall_time=unix, **event).SerializeToString())
        self._file.flush()

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _say(self, error: Exception) -> None:
        if not self._said:
            log.warning("TensorBoard gets nothing for now: %s", error)
            self._said = True
