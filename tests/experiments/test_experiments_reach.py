"""How soon a publish reaches the others: what counts, what is kept, and when the table warns."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import pytest

from braintorrent.experiments import reach
from braintorrent.experiments.scenes import Script
from braintorrent.simulation.run import Run, Spread
from braintorrent.simulation.scenario import Scenario

ALONE = """
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.scenario import Links, Scenario

def scenario(peers=3):
    return Scenario("alone", "", peers, 1.0, Policy(ask_every=300.0, alone_after=10.0), 300.0, links=Links(loss=1.0))
"""


def test_what_reached_nobody_is_apart_and_what_reached_some_only_is_never_there() -> None:
    spreads = [
        Spread(0, 5.0, influence=(1.0, 2.0, 30.0), reached=9),
        Spread(1, 6.0, influence=(1.0, None, None), reached=5),
        Spread(2, 7.0, reached=0),
        Spread(3, 8.0, held=(1.0, 2.0, 3.0)),
    ]
    run = Run(Scenario("hand-made", "", 10, 100.0), 0, {}, spreads=spreads, versions=[10] * 10, available=[1.0] * 10)
    assert reach.followed(run) == [3.0, inf]


def test_publishes_that_reach_nobody_are_no_error(tmp_path: Path) -> None:
    found = reach.measure(Script("alone.py", ALONE), 3, 0)
    assert found["nobody"] > 0
    assert (found["median"], found["worst"]) == (inf, inf)
    reach.show([found], tmp_path)


def test_runs_are_kept_and_those_of_another_script_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, out = tmp_path / "alone.py", tmp_path / "out"
    script.write_text(ALONE)
    told = [str(out), "--script", str(script), "--peers", "3", "--seeds", "0"]
    reach.main(told)
    (kept,) = out.glob("*.json")
    before = json.loads(kept.read_text())
    reach.main(told)
    assert json.loads(kept.read_text()) == before
    assert "nobody" in capsys.readouterr().out
    script.write_text(ALONE.replace("300.0", "200.0"))
    with pytest.raises(SystemExit, match=r"3-seed-0\.json.*script"):
        reach.main(told)
