"""Every hostile peer of the gallery against one live node, over real sockets.

After each: the node answers an honest peer within a second, its memory is below its cap, its model has nothing
of the attacker in it, and status, log or an answer names what happened.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from statistics import median

import numpy as np
import pytest
from gallery import ATTACKS, Attack
from gallery.mallory import Mallory
from gallery.scene import Scene, until

from braintorrent.records import short

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and all of 127.0.0.0/8")
SECONDS = 1.0  # within which an honest peer has its answer
LARGEST = 8.0  # of any honest parameter: they are of a standard normal distribution
SPOKEN = r" (known|held|merged|refused|quarantined|banned|faults): |^[\d:]+ [WEC] "
GATES = {"gate": "validation", "drop": 0.4, "max_share": 0.5}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """The scene, and every attacker with a key and an address of its own."""
    scene = Scene.set(tmp_path_factory.mktemp("attacks"), gates=GATES, discovery=True)
    crowd: dict[str, Mallory] = {}
    names = {scene.witness.id: "honest"}
    for number, attack in enumerate(ATTACKS.values()):
        mallory = Mallory(scene, f"m{number:02}", f"127.66.{number}.1")
        mallory.friends = [
            Mallory(scene, f"m{number:02}-{i}", f"127.66.{number}.{i + 2}") for i in range(attack.friends)
        ]
        crowd[attack.name] = mallory
        names |= {each.id: each.name for each in (mallory, *mallory.friends) if attack.member}
    scene.admit(names)
    try:
        scene.start()
        yield scene, crowd
    finally:
        scene.end()


async def prompt(scene: Scene) -> float:
    """Seconds until an honest peer that comes from nothing has its answer; the median of three."""
    took = []
    for _ in range(3):
        tell, seconds = await scene.ask()
        assert tell.announcements
        took.append(seconds)
    return median(took)


class Evidence:
    """What the victim says of the attacker and its friends from now on, and whether it says anything new at all."""

    def __init__(self, scene: Scene, mallory: Mallory) -> None:
        self._scene, self._whole = scene, [mallory, *mallory.friends]
        self._said, self._notes, self._peers = len(scene.words()), scene.notes(), self._roster()

    @property
    def said(self) -> str:
        """All it logged since."""
        return self._scene.words()[self._said :]

    def lines(self) -> list[str]:
        """From status and log, if they name one of them by name or id."""
        names = re.compile(
            "|".join(rf"\b{re.escape(n)}\b" for each in self._whole for n in (each.name, short(each.id)))
        )
        new = [*(self._scene.notes() - self._notes), *self.said.splitlines()]
        return [*(line for each in self._whole for line in self._scene.shown(each.id)), *filter(names.search, new)]

    def unchanged(self) -> None:
        """Nobody came or went, nothing waits or is held against them, and nothing is believed of them."""
        assert self._roster() == self._peers
        spoken = [line for line in self.lines() if re.search(SPOKEN, line)]
        assert not spoken, spoken

    def _roster(self) -> set[tuple[str, str]]:
        return {(p["id"], p["name"]) for p in self._scene.status()["peers"]}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_the_node_withstands(gallery, attack: Attack):
    scene, crowd = gallery
    mallory = crowd[attack.name]
    scene.forget_peak()
    evidence, before = Evidence(scene, mallory), scene.status()["version"]
    heard = await asyncio.wait_for(attack.run(mallory), 30) or []

    assert scene.running(), evidence.said
    assert await prompt(scene) < SECONDS
    assert scene.peak() < scene.memory, f"{scene.peak() >> 20} MiB where {scene.memory >> 20} are allowed"
    assert await until(lambda: scene.status().get("version") not in (before, None)), "it trains no more"
    ids = {each.id for each in (mallory, *mallory.friends)}
    weights = scene.merged()
    assert all(weights.get(peer, 0.0) <= attack.share for peer in ids), weights
    _, parameters, authors = await scene.model()
    assert np.isfinite(parameters).all()
    assert np.abs(parameters).max() < LARGEST
    assert attack.share or not authors & ids
    if attack.silent:
        evidence.unchanged()
    else:
        lines = [*heard, *evidence.lines()]
        assert any(re.search(attack.named, line) for line in lines), "\n".join(lines)
    assert "Traceback" not in evidence.said, evidence.said


def test_afterwards_it_ends_cleanly_and_every_byte_of_its_past_is_whole(gallery):
    scene, _ = gallery
    scene.end()
    assert scene.processes[0].returncode == 0, scene.words()[-2000:]
    command = [sys.executable, "-m", "braintorrent", "audit", "-C", str(scene.victim)]
    audit = subprocess.run(command, capture_output=True, text=True, check=False)
    assert audit.returncode == 0, audit.stdout + audit.stderr
