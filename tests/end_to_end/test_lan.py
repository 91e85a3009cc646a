"""Four labs on four machines that find each other by mDNS: one is cut off and returns, then has a thin line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from braintorrent.experiments.processes import Processes
from braintorrent.experiments.real_lan import Lan
from braintorrent.experiments.real_ledgers import Story, read
from braintorrent.protocol.version import Version
from braintorrent.storage import Gap, taken_from

CUT, *OTHERS = NAMES = ("lab-a", "lab-b", "lab-c", "lab-d")
TASK = {"size": 50_000, "steps": 5, "seconds": 1.0}
TIMING = {"ask_every": 0.5, "ask_deadline": 2.0, "alone_after": 2.0}
MODEL_BYTES = 4 * TASK["size"]
THIN = MODEL_BYTES  # bytes a second each way: three labs publish thrice as much
HEALED = 3 * TIMING["ask_every"]


@dataclass
class Labs:
    """Seen through their ledgers: `status` answers on each machine's own loopback only."""

    lan: Lan
    addresses: dict[str, str]
    folders: dict[str, Path]
    processes: Processes

    def tell(self) -> dict[str, Story]:
        return {name: read(folder) for name, folder in self.folders.items()}

    def newest(self, stories: dict[str, Story]) -> dict[str, Version]:
        return {name: story.own[-1][0] for name, story in stories.items() if story.own}

    def until(self, condition: Callable[[dict[str, Story]], bool], seconds: float) -> float:
        """Seconds until it was so; fails with what the labs said."""
        began = time.monotonic()
        while not condition(self.tell()):
            if time.monotonic() - began > seconds:
                words = [f"--- {name}\n{self.processes.last_words(at, 20)}" for name, at in self.folders.items()]
                pytest.fail("\n".join([f"not within {seconds} s", *words]))
            time.sleep(0.1)
        return time.monotonic() - began

    def all_have(self, versions: dict[str, Version]) -> Callable[[dict[str, Story]], bool]:
        """Whether every lab has had each lab's version, or a newer one."""
        return lambda stories: since_when(stories, versions) is not None


def since_when(stories: dict[str, Story], versions: dict[str, Version]) -> float | None:
    """Unix seconds since when every lab has had each lab's version, or a newer one; None: not yet."""
    wanted = {stories[name].me: version for name, version in versions.items()}
    firsts = [
        min((unix for (a, v), unix in story.arrived.items() if a == author and v >= version), default=None)
        for story in stories.values()
        for author, version in wanted.items()
    ]
    return None if None in firsts else max(firsts)


@pytest.fixture
def labs(lan, federate) -> Iterator[Labs]:
    federation = federate(*NAMES, task=TASK, timing=TIMING, listen="0.0.0.0:0")
    addresses = {name: f"192.0.2.{number}" for number, name in enumerate(NAMES, 1)}
    on = {federation.folders[name]: lan.host(address) for name, address in addresses.items()}
    with Processes(federation.folders.values(), on=on) as processes:
        yield Labs(lan, addresses, federation.folders, processes)


def test_a_lab_is_cut_off_returns_and_has_a_thin_line(labs, record_property):
    labs.until(lambda told: len(labs.newest(told)) == 4 and labs.all_have(labs.newest(told))(told), 30)

    labs.lan.part([labs.addresses[CUT]])
    time.sleep(TIMING["ask_deadline"])
    before = labs.tell()
    labs.until(
        lambda told: all(v.counter >= labs.newest(before)[n].counter + 3 for n, v in labs.newest(told).items()), 30
    )
    apart, outside = labs.tell(), {before[name].me for name in OTHERS}
    assert not [k for k in apart[CUT].arrived.keys() - before[CUT].arrived.keys() if k[0] in outside], "it was cut off"
    healed, newest = time.time(), labs.newest(labs.tell())
    labs.lan.heal()
    labs.until(labs.all_have(newest), 30)
    seconds = since_when(labs.tell(), newest) - healed
    record_property("healed_after_seconds", round(seconds, 2))
    assert seconds < HEALED + TIMING["ask_deadline"], "an ask into the cut ends at its deadline, then all are asked"

    def gaps(told: dict[str, Story]) -> list[Gap]:
        """Of each other lab, what the ledger of the one that was cut off says it missed just then."""
        story = told[CUT]
        taken = taken_from((merge for _, merge in story.merges), story.arrived, {story.me})
        return [gap for each in taken.values() for gap in each.gaps if gap.since <= healed <= gap.until]

    labs.until(lambda told: len(gaps(told)) == len(OTHERS), 30)
    assert all(gap.versions - gap.held >= 2 for gap in gaps(labs.tell())), "they published three meanwhile"

    labs.lan.limit(labs.addresses[CUT], THIN, THIN)
    thin = labs.tell()
    labs.until(
        lambda told: all(v.counter >= labs.newest(thin)[n].counter + 4 for n, v in labs.newest(told).items()), 30
    )
    labs.until(labs.all_have(labs.newest(thin)), 30)
