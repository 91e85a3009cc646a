"""Virtual time: a heap of calls to make, and the trace of what happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from blake3 import blake3


class Clock:
    """Calls in order of time; calls for the same instant in the order they were made."""

    def __init__(self) -> None:
        self.now = 0.0  # seconds
        self.events = 0  # calls made so far
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._made = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` at `when`, or now if that has passed."""
        self._made += 1
        heappush(self._heap, (when if when > self.now else self.now, self._made, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Make `call(*args)` in `delay` seconds."""
        self.at(self.now + delay, call, *args)

    def run(self, until: float) -> None:
        """Make every call due by `until`; the time is `until` afterwards."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call, args = heappop(heap)
            self.events += 1
            call(*args)
        self.now = max(self.now, until)

    def clear(self) -> None:
        """Make none of the calls that are left."""
        self._heap.clear()


@dataclass
class Trace:
    """What happened, as tuples (time, peer, event, ...), and a digest of it that costs no memory."""

    keep: bool = True
    entries: list[tuple[Any, ...]] = field(default_factory=list)
    _hash: Any = field(default_factory=blake3)

    def add(self, *entry: Any) -> None:
        """One line. Values must print the same in every process: numbers, text, and tuples of them."""
        self._hash.update(repr(entry).encode())
        if self.keep:
            self.entries.append(entry)

    @property
    def digest(self) -> str:
        """BLAKE3 of every line so far."""
        return str(self._hash.hexdigest())
