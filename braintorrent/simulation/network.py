"""A network in memory: exchanges of a question and an answer over lines that delay, queue, lose and part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from braintorrent.errors import RemoteError, Unreachable
from braintorrent.simulation.clock import Clock
from braintorrent.simulation.scenario import Links

LARGE = 64 * 1024  # bytes; what is larger waits for its turn on the lines, what is smaller slips in between


@dataclass(slots=True, eq=False)
class Line:
    """What connects one peer with all others, and what went over it."""

    name: str
    links: Links
    nat: bool = False  # nobody can dial it
    closed_to: frozenset[str] = frozenset()  # these cannot
    sent: float = 0.0  # bytes
    up_free: float = 0.0  # when what is being sent is through
    down_free: float = 0.0
    side: int = 0  # of the cut; who is on another is not reached


@dataclass
class Network:
    """Carries exchanges between lines."""

    clock: Clock
    rng: Random
    lines: dict[str, Line] = field(default_factory=dict)

    def part(self, *sides: Iterable[str]) -> None:
        """Cut the network into these sides; who is in none is on a side with all such."""
        self.heal()
        for number, side in enumerate(sides, 1):
            for name in side:
                self.lines[name].side = number

    def heal(self) -> None:
        """Everyone reaches everyone again."""
        for line in self.lines.values():
            line.side = 0

    def travel(self, source: Line, target: Line, size: float) -> float | None:
        """Seconds until `size` bytes have arrived, or None if they are lost."""
        here, there = source.links, target.links
        loss = max(here.loss, there.loss)
        if source.side != target.side or (loss and self.rng.random() < loss):
            return None
        low, high = max(here.latency, there.latency, key=lambda bounds: bounds[1])
        seconds = low + (high - low) * self.rng.random()
        source.sent += size
        rate = min(here.uplink or float("inf"), there.downlink or float("inf"))
        if size < LARGE:
            return seconds + size / rate
        return seconds + self._queued(source, target, size)

    def _queued(self, source: Line, target: Line, size: float) -> float:
        """Seconds on both lines, each first come, first served: in the mean what sharing them would take."""
        now = self.clock.now
        up = down = now
        if source.links.uplink:
            up = source.up_free = max(now, source.up_free) + size / source.links.uplink
        if target.links.downlink:
            down = target.down_free = max(now, target.down_free) + size / target.links.downlink
        return max(up, down) - now

    def exchange(
        self, source: Line, target: Line, size: float, serve: Callable[[], tuple[Any, float] | None],
        done: Callable[[Any], None], deadline: float,
    ) -> None:  # fmt: skip
        """Carry `size` bytes of question to `target`, `serve` it there, and hand the answer to `done` at `source`.

        serve: returns the answer (a RemoteError is one) and its bytes, or None if nobody is there.
        done: called once; with Unreachable, `deadline` seconds after the start, if there is no answer. An answer
        that flows takes its time.
        """
        late = self.clock.now + deadline
        there = None if target.nat or source.name in target.closed_to else self.travel(source, target, size)
        if there is None or there > deadline:
            self._lost(target, late, deadline, done)
        else:
            self.clock.after(there, self._arrived, source, target, serve, done, late, deadline)

    def _arrived(
        self, source: Line, target: Line, serve: Callable[[], tuple[Any, float] | None], done: Callable[[Any], None],
        late: float, deadline: float,
    ) -> None:  # fmt: skip
        answered = serve() if source.side == target.side else None
        back = None if answered is None else self.travel(target, source, answered[1])
        if back is None or answered is None or (answered[1] < LARGE and self.clock.now + back > late):
            self._lost(target, late, deadline, done)
        else:
            self.clock.after(back, self._back, source, target, done, answered[0], late, deadline)

    def _back(
        self, source: Line, target: Line, done: Callable[[Any], None], answer: Any, late: float, deadline: float
    ) -> None:
        if source.side == target.side or isinstance(answer, RemoteError):
            done(answer)
        else:
            self._lost(target, late, deadline, done)

    def _lost(self, target: Line, late: float, deadline: float, done: Callable[[Any], None]) -> None:
        self.clock.at(late, done, Unreachable(f"no answer from {target.name} in {deadline:g} s"))
