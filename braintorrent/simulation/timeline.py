"""A scenario's churn and happenings, drawn from a seed and put in order: what befalls whom, and when.

Drawn ahead of the run, so that virtual and real peers meet with the same fate at the same seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal, NamedTuple

from braintorrent.protocol.messages import Protocols
from braintorrent.simulation.scenario import FOREVER, Churn, Happening, Scenario, Sessions

Deed = Literal[
    "start", "leave", "kill", "lose_disk", "lose_all", "old_copy", "part", "heal", "pause", "resume", "slow",
]  # fmt: skip
ENDS: dict[str, Deed] = {
    "join": "leave", "leave": "start", "kill": "start", "lose_disk": "start", "lose_all": "start",
    "partition": "heal", "pause": "resume", "slow": "slow",
}  # fmt: skip
BEGINS: dict[str, Deed] = {"join": "start", "partition": "part"}  # the others begin with themselves


class Act(NamedTuple):
    """At this second, this befalls these peers. The losses and old_copy: of a peer that is down, before it starts.

    part: they are on one side, all others on the other. factor: of a slow one; 1 ends it. protocols: spoken by a
    started one from now on; None: the same as before.
    """

    at: float
    what: Deed
    who: tuple[int, ...]
    factor: float = 1.0
    protocols: Protocols | None = None


def timeline(scenario: Scenario, seed: int) -> list[Act]:
    """All that befalls the peers of a scenario, in order of time."""
    return [act for act in fate(scenario, seed) if act.at < scenario.seconds]


def fate(scenario: Scenario, seed: int) -> list[Act]:
    """The same, and how those who are away in the end would return."""
    acts: list[Act] = []
    joining: set[int] = set()
    for number, happening in enumerate(scenario.happenings):
        who = _drawn(happening, scenario.peers, Random(f"{seed}/happening/{number}"))
        acts += _played(happening, who)
        if happening.what == "join":
            joining.update(who)
    for index in range(scenario.peers):
        rng = Random(f"{seed}/fate/{index}")
        first = scenario.within * rng.random()
        if index not in joining:
            acts += _life(scenario, index, first, rng)
    return sorted(acts, key=lambda act: act.at)


def _drawn(happening: Happening, peers: int, rng: Random) -> tuple[int, ...]:
    if not isinstance(happening.who, float):
        return tuple(index for index in happening.who if index < peers)
    return tuple(sorted(rng.sample(range(peers), max(1, round(happening.who * peers)))))


def _played(happening: Happening, who: tuple[int, ...]) -> Iterator[Act]:
    begin = BEGINS.get(happening.what, happening.what)
    groups = [(index,) for index in who] if happening.over else [who]
    for number, group in enumerate(groups):
        at = happening.at + happening.over * number / len(groups)
        if begin in ("lose_disk", "lose_all"):
            yield Act(at, "kill", group)
        yield Act(at, begin, group, happening.factor if begin == "slow" else 1.0)  # type: ignore[arg-type]
    if happening.until < FOREVER:
        yield Act(happening.until, ENDS[happening.what], who, protocols=happening.protocols)


def _life(scenario: Scenario, index: int, first: float, rng: Random) -> Iterator[Act]:
    churn = scenario.churn
    if churn is None:
        yield Act(first, "start", (index,))
    elif isinstance(churn.session, Sessions):
        for start, end in churn.session.of[index % len(churn.session.of)]:
            yield from _session(start, end, index, churn, rng)
    else:
        start, farewell = first, 2 * scenario.policy.ask_deadline  # a clean leave takes its time
        while start < scenario.seconds:
            end = start + churn.session.draw(rng)
            yield from _session(start, end, index, churn, rng)
            if end >= churn.until:
                return
            start = end + farewell + churn.absence.draw(rng)
        yield Act(start, "start", (index,))


def _session(start: float, end: float, index: int, churn: Churn, rng: Random) -> Iterator[Act]:
    fate, clean = rng.random(), rng.random() >= churn.crash
    if start > 0 and fate < churn.lost_disk:
        yield Act(start, "lose_disk", (index,))
    elif start > 0 and fate < churn.lost_disk + churn.old_copy:
        yield Act(start, "old_copy", (index,))
    yield Act(start, "start", (index,))
    if end < churn.until:
        yield Act(end, "leave" if clean else "kill", (index,))
