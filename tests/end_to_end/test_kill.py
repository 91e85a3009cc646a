"""Kill -9 at random instants: versions never go back, one version never has two contents, the others go on."""

from __future__ import annotations

import functools
import random
import shutil
import time
from pathlib import Path

import pytest

from braintorrent.node.auditing import audit
from braintorrent.protocol.version import NOTHING, Version
from braintorrent.records import open_announcement
from braintorrent.storage import StatePaths

QUICK = {"ask_every": 0.2, "alone_after": 1.0, "linger": 5.0, "ask_deadline": 3.0, "checkpoint_every": 0.05}


class Witness:
    """Sees every ledger again and again, and remembers all that any peer ever signed."""

    def __init__(self, labs) -> None:
        self.labs, self.seen, self.contents = labs, set(), {}

    def look(self) -> None:
        for name in self.labs.folders:
            with self.labs.ledger(name) as ledger:
                signed = {raw for (raw,) in ledger._database.rows("SELECT raw FROM announcement")}
            for a in map(open_announcement, signed - self.seen):  # to prove all again would take longer than the kills
                before = self.contents.setdefault((a.author, a.version), a.content)
                assert before == a.content, f"{a.version} of {name} has two contents"
            self.seen |= signed


def published(labs, name: str) -> Version:
    with labs.ledger(name) as ledger:
        newest = ledger.newest()
    return newest.version if newest else NOTHING


def whole(labs, name: str) -> list[str]:
    return [f"{found.what}: {found.said}" for found in audit(labs.folders[name]) if not found.whole]


def kill_and_return(labs, kills: int, seed: int, backup: Path) -> None:
    """Kill a random lab at a random instant, `kills` times; every fourth time an older copy of its folder returns."""
    rng, witness, names = random.Random(seed), Witness(labs), list(labs.folders)
    labs.start()
    labs.until(lambda: all(labs.versions(name) >= 1 for name in names))
    for round_ in range(kills):
        name = rng.choice(names)
        others = [other for other in names if other != name]
        time.sleep(rng.uniform(0.0, 0.8))
        labs.kill(name)
        assert whole(labs, name) == []
        witness.look()
        before, elsewhere = published(labs, name), {other: published(labs, other) for other in others}
        state = StatePaths(labs.folders[name]).path
        copy = backup / name
        if round_ % 4 == 3 and copy.exists():
            shutil.rmtree(state)
            shutil.copytree(copy, state)
            (state / "key").chmod(0o600)
        elif not copy.exists():
            shutil.copytree(state, copy)
        labs.start(name)
        labs.until(lambda n=name, b=before: published(labs, n) > b)
        returned = published(labs, name)

        labs.until(functools.partial(merged_by_all, labs, others, name, returned))
        witness.look()
        for other in others:
            assert published(labs, other) > elsewhere[other], f"{other} stood still while {name} was away"


def merged_by_all(labs, others: list[str], name: str, version: Version) -> bool:
    """Whether each of `others` has merged this version of `name`, or a newer one."""
    found = [labs.status(other) for other in others]
    rows = [p for f in found if f for p in f["peers"] if p["name"] == name and p["merged"]]
    return len(rows) == len(others) and all(_version(p["merged"]) >= version for p in rows)


def _version(text: str) -> Version:
    return Version(*map(int, text.split(".")))


@pytest.mark.timeout(300)
def test_twenty_kills(federate, tmp_path):
    labs = federate("lab-a", "lab-b", "lab-c", task={"seconds": 0.3, "size": 20_000}, timing=QUICK)
    kill_and_return(labs, 20, seed=0, backup=tmp_path / "backup")


@pytest.mark.soak
def test_three_hundred_kills(federate, tmp_path):
    labs = federate("lab-a", "lab-b", "lab-c", task={"seconds": 0.15, "size": 20_000}, timing=QUICK)
    kill_and_return(labs, 300, seed=1, backup=tmp_path / "backup")
