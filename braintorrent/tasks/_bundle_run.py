"""One version's training through a ClientAlgo: counted, shown, and halted between two iterations.

Where the algo has an ignite engine as its `trainer` (as MonaiAlgo has), its events are listened to. Another one is
asked to abort when it should halt, and says itself, in `get_weights().statistics`, how many iterations it did.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ignite.engine import Engine, Events
from monai.fl.client import ClientAlgo
from monai.fl.utils.constants import FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from braintorrent.tasks._bundle_algo import engine

ASK = 0.2  # seconds between two questions whether to halt, to an algo that fires no events


class Run:
    """Counts what one version did. `halted` and `diverged` say why it is not complete."""

    def __init__(self, epochs: int, halt: Callable[[], bool], progress: Callable[[int, int], None]) -> None:
        self.epochs, self.halt, self.progress = epochs, halt, progress
        self.done, self.halted, self.diverged = 0, False, False
        self._losses = 0.0

    @property
    def loss(self) -> float:
        """Mean training loss; 0 where the algo tells none."""
        return self._losses / max(self.done, 1)

    def train(self, algo: ClientAlgo, weights: Mapping[str, Any]) -> None:
        """Run the algo from these weights until it is through, or halted, or its loss is no longer finite."""
        self.halted = self.halt()
        if self.halted:
            return
        trainer = engine(algo)
        with self._watching(algo) if trainer is None else self._listening(trainer):
            algo.train(ExchangeObject(weights=dict(weights)))
        if trainer is None:
            statistics = algo.get_weights().statistics or {}
            self.done = int(statistics.get(FlStatistics.NUM_EXECUTED_ITERATIONS, 1))

    @contextmanager
    def _listening(self, trainer: Engine) -> Iterator[None]:
        with trainer.add_event_handler(Events.ITERATION_COMPLETED, self._iteration):
            yield

    def _iteration(self, trainer: Engine) -> None:
        self.done += 1
        self._losses += (loss := _loss(trainer.state.output))
        steps = max(self.done, self.epochs * (trainer.state.epoch_length or 0))
        if math.isfinite(loss):
            self.progress(self.done, steps)
            self.halted = self.done < steps and self.halt()
        else:
            self.diverged = True
        if self.diverged or self.halted:
            trainer.terminate(skip_completed=True)

    @contextmanager
    def _watching(self, algo: ClientAlgo) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(ASK):
                if self.halt():
                    self.halted = True
                    return algo.abort()

        watcher = threading.Thread(target=watch, name="halt", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _loss(output: Any) -> float:
    """The loss of one iteration, as MONAI's trainers put it into their output; 0 where there is none."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    loss = first.get("loss", 0.0) if isinstance(first, Mapping) else first
    parts = loss.values() if isinstance(loss, Mapping) else [loss]  # several, where several networks are trained
    return sum(float(part.mean()) if hasattr(part, "mean") else float(part or 0.0) for part in parts)
