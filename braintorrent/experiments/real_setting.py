"""A scenario as peer folders, and machines for them where their lines differ.

What processes on one machine cannot play is refused in words. What a real machine decides by itself is left to it:
latency, jitter, and who finds whom. A slow lab rests between its versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import tomli_w

from braintorrent.errors import ConfigError
from braintorrent.experiments.labs import lab_names
from braintorrent.experiments.poisoned import task as small_segmentation
from braintorrent.experiments.processes import introduce
from braintorrent.experiments.real_lan import Lan
from braintorrent.experiments.split import split
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.learner import labs
from braintorrent.simulation.scenario import Links, Scenario
from braintorrent.tasks.layouts import open_dataset
from braintorrent.workbench.proposing_facts import facts

STEPS = 10  # of the stand-in, per version
PORT = 47100


def impossible(scenario: Scenario) -> Iterator[str]:
    """Each thing in it that only the simulator can play."""
    lines = [scenario.links, *(peer.links for peer in scenario.special.values() if peer.links is not None)]
    if any(line.loss for line in lines):
        yield "loses no messages on purpose"
    if any(peer.closed_to for peer in scenario.special.values()):
        yield "has no one-way links"
    if scenario.attackers:
        yield "has no attackers; those of tests/attacks are real"
    if any(happening.what == "slow" for happening in scenario.happenings):
        yield "has slow labs from the beginning (Peer.speed), not for a while"
    if scenario.peers > 250:
        yield "has 250 processes at most"


def needs_machines(scenario: Scenario) -> bool:
    """Whether its labs need lines of their own, as on several machines."""
    special = any(peer.nat or (peer.links and _thin(peer.links)) for peer in scenario.special.values())
    return special or _thin(scenario.links) or any(h.what == "partition" for h in scenario.happenings)


def lines(scenario: Scenario) -> list[Links]:
    """Each lab's."""
    special = {index: peer.links for index, peer in scenario.special.items() if peer.links is not None}
    return [special.get(index, scenario.links) for index in range(scenario.peers)]


def _thin(line: Links) -> bool:
    """Slower than what a scenario has that says nothing of lines: as good as no limit, on one machine."""
    ways = (line.uplink, Links().uplink), (line.downlink, Links().downlink)
    return any(mine is not None and usual is not None and mine < usual for mine, usual in ways)


def lay_out(scenario: Scenario, root: Path, seed: int, addresses: list[str], data: Path | None) -> list[Path]:
    """Peer folders below `root`, all on each other's roster, and federation.toml. ConfigError if `root` is not empty.

    addresses: the labs' machines; empty: all are here. data: dealt out to the labs; None: the stand-in task.
    """
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"{root}: not empty, and nothing is overwritten; give another folder")
    folders = [root / name for name in lab_names(scenario.peers)]
    for folder in folders:
        folder.mkdir(parents=True)
    takes = [lab.train for lab in labs(scenario, Random(f"{seed}/labs"))]
    task = _standin(scenario, min(takes)) if data is None else _deal(data, folders, seed)
    name = {"median": "coordinate_median"}.get(scenario.method, scenario.method)
    agreed = {"format": 1, "id": "scenario-0001", "task": task, "method": {"name": name}, "start": {"seed": seed}}
    (root / "federation.toml").write_text(tomli_w.dumps(agreed))
    for index, folder in enumerate(folders):
        rest = takes[index] - min(takes)
        peer = {"name": folder.name, "listen": _listen(scenario, index, addresses), **_options(scenario.policy, rest)}
        peer["protocols"] = scenario.protocols
        if data is not None:
            peer |= {"data": "data", "device": "cpu", "threads": 1}
        (folder / "peer.toml").write_text(tomli_w.dumps(peer))
    introduce(folders)
    return folders


def put_on_machines(lan: Lan, scenario: Scenario, addresses: list[str]) -> list[list[str]]:
    """Make each lab's machine, its line held to its rate. What to put before a command to run it there."""
    commands = [lan.host(address) for address in addresses]
    for address, line in zip(addresses, lines(scenario), strict=True):
        if _thin(line):
            lan.limit(address, line.uplink, line.downlink)
    return commands


def _listen(scenario: Scenario, index: int, addresses: list[str]) -> str:
    special = scenario.special.get(index)
    if not addresses or (special is not None and special.nat):
        return "127.0.0.1:0"  # on a machine of its own nobody else can dial that
    return f"{addresses[index]}:{PORT}"


def _options(policy: Policy, rest: float) -> dict[str, Any]:
    """The tables of peer.toml that say the same as `policy`. rest: seconds between versions."""
    timing = {key: getattr(policy, key) for key in ("ask_every", "ask_deadline", "max_merge", "quorum", "patience",
                                                    "alone_after", "linger")}  # fmt: skip
    timing["fanout"] = "all" if policy.fanout is None else policy.fanout
    if interval := (policy.mean_interval or 0.0) + rest:
        timing |= {"cadence": "poisson", "interval": interval}
    stop = {key: getattr(policy.stop, key) for key in ("versions", "minutes", "target", "patience")}
    return {"timing": timing, "stop": {key: value for key, value in stop.items() if value is not None}}


def _standin(scenario: Scenario, seconds: float) -> dict[str, Any]:
    learner = scenario.learner
    return {
        "kind": "standin", "size": max(1, scenario.model_bytes // 4), "steps": STEPS, "seconds": seconds,
        "rate": 1 - (1 - learner.rate) ** (1 / STEPS), "samples": sum(learner.samples) // 2,
    }  # fmt: skip


def _deal(data: Path, folders: list[Path], seed: int) -> dict[str, Any]:
    dataset = open_dataset(data)
    labels = facts(dataset, lambda *_: None).labels
    split(dataset, {folder.name: folder / "data" for folder in folders}, labels, seed=seed)
    return small_segmentation(labels)
