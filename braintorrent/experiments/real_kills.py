"""`python -m braintorrent.experiments.real_kills DATA OUT`: what do kills cost a federation in the end?

Plays a scenario twice for each seed, with real processes on shares of DATA: as it is (scenarios/kill_and_return.py),
and with nothing that befalls anybody. In both each lab trains so many versions, waits for the others and merges a last
time, so that a lab which was killed has learned as much as one that was not. Who loses its disk counts from 0 again and
trains more: in all, labs that were killed have trained more than the quiet ones, and equal scores are not of equal
effort. Then each lab's final model is measured on its own test cases, which are the same in both. A run that OUT holds
already is not played again; what is left of one that was interrupted is removed, and played from its beginning.

    kills         that met a lab at work, of all: others met one that was only starting, or had finished
    versions      of all labs; each: the least and most that one of them trained
    restart       seconds from the start of a process until its lab began a new life, at most
    held          seconds from the begin of a life, or a publication, until a lab had merged and trained on, at most
    wait          seconds that a lab ran without a new version, at most; its training is part of these
    mean, worst   scores of the labs' final models; cost: of the means, against the quiet run
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from blake3 import blake3
from rich.box import SIMPLE_HEAD
from rich.table import Table

from braintorrent.errors import BrainTorrentError
from braintorrent.experiments.cells import data_digest, keep, kept, numbers
from braintorrent.experiments.labs import lab_names
from braintorrent.experiments.real import run_real
from braintorrent.experiments.scenes import Script
from braintorrent.node.tables import console
from braintorrent.protocol.policy import StopRule
from braintorrent.simulation.scenario import Scenario
from braintorrent.workbench.evaluating import evaluate

VERSIONS = 70  # of each lab: six labs on two quiet cores train for as long as they are killed
SECONDS = 900.0  # after which a run that has not ended has failed
SCORES = ("dice", "score")  # of a model on scans, or of the stand-in
WITHIN = 0.02  # of the mean score without kills
MERGING = 1.0  # seconds that a merge takes on a busy machine

Found = dict[str, Any]


def pair(scenario: Scenario, versions: int) -> dict[str, Scenario]:
    """The scenario and one where nothing happens; every lab of both ends by itself."""
    pace = replace(scenario.policy, stop=StopRule(versions=versions), linger=SECONDS)
    told = replace(scenario, policy=pace, seconds=SECONDS)
    return {"quiet": replace(told, name="quiet", happenings=(), churn=None), "kills": told}


def play(scenario: Scenario, folder: Path, seed: int, data: Path | None) -> Found:
    """One run, whose labs' folders go into `folder`: its figures, and each lab's final score.

    BrainTorrentError if a lab has not finished in time.
    """
    run = run_real(scenario, folder, seed, data=data)
    labs = lab_names(scenario.peers)
    return {
        "seed": seed, "figures": run.figures, "versions": run.versions, "available": run.available,
        "happened": run.happened, "scores": {name: _score(folder / name) for name in labs},
    }  # fmt: skip


def _score(folder: Path) -> float:
    report = evaluate(folder, progress=lambda what, done, of: None)
    for row in report["models"]:
        if row["model"] == "merged":
            return float(next(row["summary"][name] for name in SCORES if name in row["summary"]))
    raise BrainTorrentError(f"{folder.name} had not finished after {SECONDS:.0f} s; see {folder}/state/log")


def measure(
    scenario: Scenario, out: Path, seeds: Sequence[int], versions: int, data: Path | None,
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Found]]:  # fmt: skip
    """Of each seed both runs, by name; each is kept in `out` when it is done. ConfigError if others are kept there."""
    found, trained_on = [], "stand-in" if data is None else data_digest(data)
    for seed in seeds:
        both: dict[str, Found] = {}
        for name, scenario_ in pair(scenario, versions).items():
            folder = out / f"{name}-{versions}-versions-seed-{seed}"
            file = folder.with_suffix(".json")
            of = {"data": trained_on, "scenario": _digest(scenario_)}
            if (run := kept(file, of)) is None:
                shutil.rmtree(folder, ignore_errors=True)
                run = keep(file, of | play(scenario_, folder, seed, data))
            both[name] = run
            say(f"seed {seed}, {name}: {mean(both[name]['scores'].values()):.3f}")
        found.append(both)
    return found


def _digest(scenario: Scenario) -> str:
    return blake3(repr(replace(scenario, teaches="")).encode()).hexdigest()[:16]


def table(found: Sequence[Mapping[str, Found]], ask_every: float) -> Table:
    """One row a run; red where a version is lost, a lab was held up longer than it asks, or the score differs."""
    shown = Table("seed", "run", "kills", "versions", "each", "lost", "restart", "held", "wait", "mean", "worst",
                  "cost", box=SIMPLE_HEAD, padding=0)  # fmt: skip
    for both in found:
        for name, run in both.items():
            figures, scores = run["figures"], run["scores"].values()
            cost = mean(scores) - mean(both["quiet"]["scores"].values())
            good = not figures["versions_lost"] and figures["held_up"] <= ask_every + MERGING and abs(cost) <= WITHIN
            seconds = (f"{figures[which]:.1f}" for which in ("longest_boot_seconds", "held_up", "longest_wait"))
            versions = run["versions"]
            shown.add_row(
                str(run["seed"]), name, f"{figures['kills_at_work']}/{figures['kills']}", str(sum(versions)),
                f"{min(versions)}-{max(versions)}", str(figures["versions_lost"]), *seconds, f"{mean(scores):.3f}",
                f"{min(scores):.3f}", f"{cost:+.3f}", style=None if good else "red",
            )  # fmt: skip
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.real_kills", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", type=Path, help="a data folder with labels, such as Task04_Hippocampus")
    parser.add_argument("out", type=Path, help="where the labs' folders and a JSON file for each run go")
    parser.add_argument("--script", type=Path, default=Path("scenarios/kill_and_return.py"), help="the scenario")
    parser.add_argument("--seeds", type=numbers, default=(0, 1), help="such as 0,1")
    parser.add_argument("--versions", type=int, default=VERSIONS, help="of each lab")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        scenario = Script.read(given.script).build()
        found = measure(scenario, given.out, given.seeds, given.versions, given.data, console().print)
    except BrainTorrentError as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: interrupted; the same command goes on with what is missing")
    console().print(table(found, scenario.policy.ask_every))


if __name__ == "__main__":
    main()
