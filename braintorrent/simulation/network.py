"""A network in memory: exchanges of a question and an answer over lines that delay, are shared, lose and part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from braintorrent.errors import RemoteError, Unreachable
from braintorrent.simulation.clock import Clock
from braintorrent.simulation.flows import NEVER, Flow, Flows, Way
from braintorrent.simulation.scenario import Links

STALL = 30.0  # seconds without a byte, after which a transfer has failed, as network.limits has it
LARGE = 64 * 1024  # bytes; what is larger shares the lines with others, what is smaller slips in between
FRAMES = 1.1  # bytes on a line for one that flows: headers, acknowledgements, what TCP repeats (measured, lines full)


class Line:
    """What connects one peer with all others, and what went over it.

    nat: nobody can dial it; closed_to: these cannot.
    """

    def __init__(self, name: str, links: Links, nat: bool = False, closed_to: frozenset[str] = frozenset()) -> None:
        self.name, self.links, self.nat, self.closed_to = name, links, nat, closed_to
        self.sent = 0.0  # bytes
        self.side = 0  # of the cut; who is on another is not reached
        self.silent = False  # its process is stopped where it is: no byte goes or is taken
        self.hung_up = -NEVER  # when its process last ended
        self.up, self.down = Way(links.uplink or NEVER), Way(links.downlink or NEVER)


@dataclass
class Network:
    """Carries exchanges between lines."""

    clock: Clock
    rng: Random
    lines: dict[str, Line] = field(default_factory=dict)
    flows: Flows = field(init=False)
    halted: dict[Flow, float] = field(default_factory=dict)  # by a cut or a silent end, since when

    def __post_init__(self) -> None:
        self.flows = Flows(self.clock)

    def part(self, *sides: Iterable[str]) -> None:
        """Cut the network into these sides; who is in none is on a side with all such."""
        side_of = {name: number for number, side in enumerate(sides, 1) for name in side}
        for name, line in self.lines.items():
            line.side = side_of.get(name, 0)
        self._look()

    def heal(self) -> None:
        """Everyone reaches everyone again."""
        self.part()

    def silence(self, line: Line, silent: bool) -> None:
        """Its process is stopped where it is, or goes on."""
        line.silent = silent
        self._look()

    def hang_up(self, line: Line) -> None:
        """Its process is gone, and its connections with it: who is in the middle of a transfer learns so at once."""
        line.silent, line.hung_up = False, self.clock.now
        for flow in (*line.up.flows, *line.down.flows):
            self.flows.cut(flow)
        if self.halted:
            self._look()

    def halt(self, flow: Flow) -> None:
        """No byte comes through: it fails, unless it goes on soon."""
        self.flows.halt(flow)
        self.halted[flow] = now = self.clock.now
        self.clock.after(STALL, self._fail, flow, now)

    def cut(self, flow: Flow) -> None:
        """It is given up, if it is still on its way."""
        if self.halted.pop(flow, None) is not None:
            flow.cut(flow.left)
        else:
            self.flows.cut(flow)

    def _fail(self, flow: Flow, since: float) -> None:
        if self.halted.get(flow) == since:
            self.cut(flow)

    def _look(self) -> None:
        """What flows between two that do not reach each other halts; what halted goes on where they do again."""
        of = {way: line for line in self.lines.values() for way in (line.up, line.down)}
        for flow in [flow for line in self.lines.values() for flow in line.up.flows]:
            if not _reach(of[flow.up], of[flow.down]):
                self.halt(flow)
        for flow, since in [*self.halted.items()]:
            one, other = of[flow.up], of[flow.down]
            if _reach(one, other) and since <= max(one.hung_up, other.hung_up):
                self.cut(flow)  # its other end is told now that there is nobody any more
            elif _reach(one, other):
                del self.halted[flow]
                self.flows.go_on(flow)

    def exchange(
        self, source: Line, target: Line, size: float, serve: Callable[[], tuple[Any, float] | None],
        done: Callable[[Any], None], deadline: float, trips: int = 1,
    ) -> None:  # fmt: skip
        """Carry `size` bytes of question to `target`, `serve` it there, and hand the answer to `done` at `source`.

        serve: returns the answer (a RemoteError is one) and its bytes, or None if nobody is there.
        done: called once; with Unreachable, `deadline` seconds after the start, if there is no answer. An answer
        that flows takes its time, but no STALL without a byte. trips: there and back, all but the last of them to make
        a connection.
        """
        Exchange(self, source, target, serve, done, self.clock.now + deadline, deadline).ask(size, trips)

    def delay(self, source: Line, target: Line) -> float | None:
        """Seconds until the first byte of a message is there, or None if it is lost."""
        loss = max(source.links.loss, target.links.loss)
        if source.side != target.side or (loss and self.rng.random() < loss):
            return None
        return _seconds(source, target, self.rng.random())


def _reach(one: Line, other: Line) -> bool:
    return one.side == other.side and not (one.silent or other.silent)


def _seconds(source: Line, target: Line, share: float) -> float:
    """Of the least (share 0) to the most (1) that the way takes, and behind what flows where it is narrow.

    That is one place: what has passed it comes no faster than the rest of the way takes it.
    """
    here, there = source.links, target.links
    low, high = here.latency if here.latency[1] >= there.latency[1] else there.latency
    narrow = here.queue or there.queue
    queued = max(here.queue * source.up.busy, there.queue * target.down.busy) if narrow else 0.0
    return queued + low + (high - low) * share


@dataclass(slots=True, eq=False)
class Exchange:
    """A question under way to `target`, or its answer back: see Network.exchange. late: waited for till then."""

    network: Network
    source: Line
    target: Line
    serve: Callable[[], tuple[Any, float] | None]
    done: Callable[[Any], None]
    late: float
    deadline: float

    def ask(self, size: float, trips: int) -> None:
        """Set out."""
        source, target, network = self.source, self.target, self.network
        closed = target.nat or source.name in target.closed_to
        delay = None if closed else network.delay(source, target)
        if delay is None:
            self._lost()
            return
        if trips > 1:
            delay += (trips - 1) * (_seconds(source, target, 0.5) + _seconds(target, source, 0.5))
        flow = self._send(source, target, size, delay, self._arrived)
        if flow is not None:
            network.clock.at(self.late, network.cut, flow)

    def _arrived(self) -> None:
        source, target = self.source, self.target
        answered = self.serve() if source.side == target.side else None
        delay = None if answered is None else self.network.delay(target, source)
        if answered is None or delay is None:
            self._lost()
        else:
            self._send(target, source, answered[1], delay, self._back, answered[0])

    def _back(self, answer: Any) -> None:
        if self.source.side == self.target.side or isinstance(answer, RemoteError):
            self.done(answer)
        else:
            self._lost()

    def _send(
        self, here: Line, there: Line, size: float, delay: float, then: Callable[..., None], *args: Any
    ) -> Flow | None:
        """Whatever is large flows, and takes as long as others leave it."""
        rate = min(here.up.rate, there.down.rate)
        if size >= LARGE and rate < NEVER:
            return self._flow(here, there, size, delay, then, *args)
        here.sent += size
        clock = self.network.clock
        arrives = clock.now + delay + size / rate
        if arrives > self.late:
            self._lost()
        else:
            clock.at(arrives, then, *args)
        return None

    def _flow(self, here: Line, there: Line, size: float, delay: float, then: Callable[..., None], *args: Any) -> Flow:
        clock = self.network.clock

        def through() -> None:
            here.sent += size
            clock.after(delay, then, *args)

        def cut(left: float) -> None:
            here.sent += size - left / FRAMES
            clock.after(0.0, self.done, Unreachable(f"the transfer with {self.target.name} broke off"))

        flow = self.network.flows.begin(here.up, there.down, size * FRAMES, through, cut)
        if not _reach(here, there):
            self.network.halt(flow)
        return flow

    def _lost(self) -> None:
        trouble = Unreachable(f"no answer from {self.target.name} in {self.deadline:g} s")
        self.network.clock.at(self.late, self.done, trouble)
