"""Bytes that flow over shared lines: whoever sends at the same time shares the way, as TCP connections do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from braintorrent.simulation.clock import Clock

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Way:
    """One direction of a line. rate: bytes per second, inf if unlimited; used: of these, by its flows now."""

    rate: float
    used: float = 0.0
    flows: dict[Flow, None] = field(default_factory=dict)  # as a set, in an order that does not hang on hashing

    @property
    def busy(self) -> bool:
        """Whether its flows take all that it has."""
        return bool(self.flows) and self.used >= 0.999 * self.rate


@dataclass(slots=True, eq=False)
class Flow:
    """So many bytes on their way up one line and down another.

    through: called at the end; cut: called instead with the bytes that are left.
    """

    up: Way
    down: Way
    left: float
    through: Callable[[], None]
    cut: Callable[[float], None]
    since: float  # when `left` was so
    rate: float = 0.0
    wakes: float = NEVER  # when the clock next looks at it

    def most(self, way: Way) -> float:
        """Its rate, were `way` its own: its other way's spare is all that it can have more."""
        other = self.down if way is self.up else self.up
        spare = other.rate - other.used
        return self.rate + spare if spare > 0.0 else self.rate


class Flows:
    """All that flows now.

    Shares are max-min fair as far as the ways beside a flow that begins or ends, and those next to these: a flow takes
    an equal share of its narrower way, and what it cannot use of the other is the others'. Flows further off learn of
    it when something begins or ends nearer to them, so that an event costs no more than the flows on a few ways.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def begin(self, up: Way, down: Way, size: float, through: Callable[[], None], cut: Callable[[float], None]) -> Flow:
        """Send `size` bytes over two ways, not both of them unlimited."""
        flow = Flow(up, down, size, through, cut, self.clock.now)
        self.go_on(flow)
        return flow

    def go_on(self, flow: Flow) -> None:
        """It flows, or flows again after it was halted."""
        up, down = flow.up, flow.down
        flow.since, flow.rate, flow.wakes = self.clock.now, 0.0, NEVER
        up.flows[flow] = down.flows[flow] = None
        shared = [way for way in (up, down) if len(way.flows) > 1]
        if len(shared) == 2:  # an equal share of the first; of what it does not get of the second, others have some
            self._pace(flow, min(up.rate / len(up.flows), down.rate))
            shared.append(up)
        for way in shared or (up,):
            self._share(way)

    def cut(self, flow: Flow) -> None:
        """It flows no more, if it still does."""
        if flow in flow.up.flows:
            self.halt(flow)
            flow.cut(flow.left)

    def _share(self, way: Way, *, further: bool = True) -> None:
        """Equal shares on one way; what a flow cannot use, since its other way is full, is left to the rest.

        further: then on the full other ways of those that have less now, or less than an equal share there.
        """
        free, waiting, moved = way.rate, len(way.flows), dict[Way, None]()
        for flow in sorted(way.flows, key=lambda flow: flow.most(way)) if waiting > 1 else list(way.flows):
            fair = free / waiting
            rate = min(flow.most(way), fair)
            free, waiting = free - rate, waiting - 1
            if further:
                other = flow.down if way is flow.up else flow.up
                least = 0.999 * other.rate / len(other.flows)
                if len(other.flows) > 1 and other.busy and (rate < 0.999 * flow.rate or rate < min(fair, least)):
                    moved[other] = None
            self._pace(flow, rate)
        for other in moved:
            self._share(other, further=False)

    def _pace(self, flow: Flow, rate: float) -> None:
        """From now on it flows at this rate."""
        if rate == flow.rate:
            return
        now = self.clock.now
        flow.left -= flow.rate * (now - flow.since)
        flow.up.used += rate - flow.rate
        flow.down.used += rate - flow.rate
        flow.since, flow.rate = now, rate
        due = now + max(0.0, flow.left) / rate
        if due < flow.wakes:  # a call that is too early looks again and sleeps on
            flow.wakes = due
            self.clock.at(due, self._look, flow, due)

    def _look(self, flow: Flow, when: float) -> None:
        if when != flow.wakes:
            return
        due = flow.since + max(0.0, flow.left) / flow.rate
        if due > when + 1e-9:
            flow.wakes = due
            self.clock.at(due, self._look, flow, due)
        else:
            self.halt(flow)
            flow.through()

    def halt(self, flow: Flow) -> None:
        """What it used of its ways is the others'. What is left of it can go on later."""
        flow.left -= flow.rate * (self.clock.now - flow.since)
        flow.wakes = -NEVER
        for way in (flow.up, flow.down):
            del way.flows[flow]
            way.used = way.used - flow.rate if way.flows else 0.0
        for way in (flow.up, flow.down):
            if way.flows:
                self._share(way)
