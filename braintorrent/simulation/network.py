"""A network in memory: exchanges of a question and an answer over links that delay, lose and part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from braintorrent.errors import RemoteError, Unreachable
from braintorrent.simulation.clock import Clock


@dataclass(frozen=True)
class Link:
    """One direction between two peers."""

    latency: float = 0.02  # seconds, at least
    jitter: float = 0.02  # seconds added at most, uniformly
    loss: float = 0.0  # share of messages that never arrive
    bytes_per_second: float = 100e6 / 8


@dataclass
class Network:
    """Carries exchanges between peers named by text. `links` overrides `link` for one (source, target)."""

    clock: Clock
    rng: Random
    link: Link = Link()
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)  # these can dial, and cannot be dialled
    _side: dict[str, int] = field(default_factory=dict)  # peers on different sides do not reach each other

    def part(self, *sides: Iterable[str]) -> None:
        """Cut the network into these sides; who is in none is on a side with all such."""
        self._side = {peer: index for index, side in enumerate(sides) for peer in side}

    def heal(self) -> None:
        """Everyone reaches everyone again."""
        self._side = {}

    def reaches(self, source: str, target: str) -> bool:
        """Whether both are on the same side of every cut."""
        return self._side.get(source) == self._side.get(target)

    def seconds(self, size: float) -> float:
        """What `size` bytes take on the slowest link."""
        return size / min(link.bytes_per_second for link in (self.link, *self.links.values()))

    def travel(self, source: str, target: str, size: float) -> float | None:
        """Seconds that `size` bytes take, or None if they are lost."""
        link = self.links.get((source, target), self.link)
        if not self.reaches(source, target) or (link.loss and self.rng.random() < link.loss):
            return None
        return link.latency + link.jitter * self.rng.random() + size / link.bytes_per_second

    def exchange(
        self, source: str, target: str, serve: Callable[[], Any], done: Callable[[Any], None], *,
        deadline: float, size: float = 0.0,
    ) -> None:  # fmt: skip
        """Carry a question to `target`, `serve` it there, and hand the answer to `done` at `source`.

        serve: returns the answer (a RemoteError is an answer), or None if nobody is there.
        done: called once; with Unreachable, `deadline` seconds after the start, if either way was lost.
        size: bytes of the answer.
        """
        late = self.clock.now + deadline

        def lost() -> None:
            self.clock.at(late, done, Unreachable(f"no answer from {target} in {deadline:g} s"))

        def arrived() -> None:
            answer = serve() if self.reaches(source, target) else None
            back = None if answer is None else self.travel(target, source, 0.0 if _refused(answer) else size)
            if back is None or self.clock.now + back > late:
                lost()
            else:
                self.clock.after(back, done, answer)

        there = None if target in self.hidden else self.travel(source, target, 0.0)
        if there is None:
            lost()
        else:
            self.clock.after(there, arrived)


def _refused(answer: Any) -> bool:
    return isinstance(answer, RemoteError)
