"""`python -m braintorrent.experiments.real_predicted OUT`: does the simulator say what real processes will do?

Plays steady and kill_and_return with 6 labs twice: with one process for each on a machine of its own (network
namespaces: Linux and root), and in virtual time. All lines have LINE bytes per second, so that it takes a while until
all have a version. The simulator is told what no protocol decides: how long these lines let messages wait behind
transfers, and how long a process takes to begin, to merge and to store.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from braintorrent.experiments.cells import numbers
from braintorrent.experiments.real import run_real
from braintorrent.experiments.real_lan import QUEUE
from braintorrent.protocol.policy import Policy
from braintorrent.simulation.run import Run
from braintorrent.simulation.running import run
from braintorrent.simulation.scenario import Happening, Links, Quadratic, Scenario

LABS, SECONDS, VERSION, MODEL, LINE = 6, 150.0, 10.0, 200_000, 250_000.0
KILLS, AWAY = range(20, 140, 15), 3.0  # not in step with the versions, else one moment decides all
PACE = Policy(ask_every=3.0, ask_deadline=5.0, alone_after=5.0)
WITHIN = 0.25  # of the real figure
MERGE, STORE = 0.05, 0.02  # seconds that the stand-in takes, and this disk
JITTER = 0.01  # of a version's time, in processes that sleep it
SETTLED = 0.7  # share of the run: a later version may not come to all before the end


def scenarios() -> list[Scenario]:
    """Both, on lines of which the bandwidth matters and the latency does not."""
    steady = Scenario(
        "steady", "", LABS, SECONDS, PACE, VERSION, model_bytes=MODEL, within=VERSION,
        links=Links((0.0, 0.001), LINE, LINE, queue=QUEUE), learner=Quadratic(), jitter=JITTER,
        merge_seconds=MERGE, store_seconds=STORE,
    )  # fmt: skip
    kills = tuple(Happening(float(at), "kill", 1 / LABS, until=at + AWAY) for at in KILLS)
    return [steady, replace(steady, name="kill_and_return", happenings=kills)]


def virtual(scenario: Scenario, seed: int, boot: float) -> Run:
    """What the simulator says, where a process takes `boot` seconds to begin: so long ago was its second 0."""
    sooner = tuple(replace(h, at=h.at - boot) for h in scenario.happenings)
    return run(replace(scenario, seconds=scenario.seconds - boot, happenings=sooner), seed)


def compared(run: Run) -> dict[str, float]:
    """Versions, bytes by all, and seconds until all present labs had a version, in the middle."""
    until = SETTLED * run.scenario.seconds
    reached = [spread.held[2] for spread in run.spreads if spread.at < until]
    return {
        "versions": float(sum(run.versions)),
        "bytes sent": sum(run.bytes_sent),
        "seconds until all": median(float("inf") if seconds is None else seconds for seconds in reached),
    }


def told(scenario: Scenario, out: Path, seed: int) -> dict[str, Any]:
    """Both runs of a scenario, their figures side by side."""
    real = run_real(scenario, out / f"{scenario.name}-{seed}", seed)
    predicted, seen = compared(virtual(scenario, seed, real.figures["boot_seconds"])), compared(real)
    ratios = {name: predicted[name] / seen[name] for name in seen}
    return {
        "scenario": scenario.name, "seed": seed, "virtual": predicted, "real": seen, "ratio": ratios,
        "figures": real.figures,
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """For people; what is further off than WITHIN in red."""
    shown = Table("scenario", "seed", "figure", "virtual", "real", "ratio")
    for row in rows:
        for name, ratio in row["ratio"].items():
            pair = (f"{row[which][name]:,.4g}" for which in ("virtual", "real"))
            style = None if abs(ratio - 1) <= WITHIN else "red"
            shown.add_row(row["scenario"], str(row["seed"]), name, *pair, f"{ratio:.2f}", style=style)
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.real_predicted", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("out", type=Path, help="where the labs' folders and predicted.json go")
    parser.add_argument(
        "--seeds", type=numbers, default="0,1", help="each plays both scenarios, which takes five minutes"
    )
    given = parser.parse_args(argv)
    rows = [told(scenario, given.out, seed) for seed in given.seeds for scenario in scenarios()]
    (given.out / "predicted.json").write_text(json.dumps(rows, indent=1) + "\n")
    Console().print(table(rows))


if __name__ == "__main__":
    main()
