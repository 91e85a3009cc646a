"""`python -m braintorrent.experiments.reach OUT`: how soon does what one lab publishes reach the others, of how many?

Plays scenarios/many.py in virtual time for so long that the slowest publish it follows comes to all, with ever more
labs. Each run follows 32 publishes until they have reached 99 % of the present labs, which hold them or a model that
merged them; the unit is the mean time from one version of a lab to its next. A few reach nobody (`nobody`): their
author was gone before anybody had fetched them. A run that OUT already holds is not played again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import inf, log10
from pathlib import Path
from statistics import median
from typing import Any

from blake3 import blake3
from rich.console import Console
from rich.progress import track
from rich.table import Table

from braintorrent.errors import LocalError
from braintorrent.experiments.cells import keep, kept, numbers
from braintorrent.experiments.pictures import lines
from braintorrent.experiments.scenes import Script
from braintorrent.simulation.run import Run
from braintorrent.simulation.running import run

SECONDS = 9000.0  # thirty versions, of which publishes are followed from the third to the ninth

Found = Mapping[str, Any]


def allowed(peers: int) -> float:
    """Version intervals that a publish may take: as a rumour spreads, so many more for ten times the labs."""
    return 4 * log10(peers) + 2


def followed(of: Run) -> list[float]:
    """Version intervals until each publish that reached anybody had reached 99 % of the labs; inf: it had not."""
    interval = of.scenario.seconds * sum(of.available) / sum(of.versions)
    found = (spread.influence[2] for spread in of.spreads if spread.reached)
    return [inf if seconds is None else seconds / interval for seconds in found]


def digest(script: Script) -> str:
    """Of its text."""
    return blake3(script.text.encode()).hexdigest()[:16]


def measure(script: Script, peers: int, seed: int) -> Found:
    """One run: plain values."""
    began = time.process_time()
    told = run(replace(script.build(peers), seconds=SECONDS), seed)
    took = followed(told) or [inf]
    wanted = ("events", "peak_rss_mib", "versions_published", "versions_lost", "bytes_per_peer_per_version")
    return {
        "script": digest(script), "peers": peers, "seed": seed, "median": median(took), "worst": max(took),
        "nobody": sum(spread.reached == 0 for spread in told.spreads),
        "cpu_seconds": time.process_time() - began, **{name: told.figures[name] for name in wanted},
    }  # fmt: skip


def show(found: Sequence[Found], out: Path) -> None:
    """A table, and OUT/reach.svg."""
    labs = sorted({one["peers"] for one in found})
    table = Table("labs", "runs", "intervals to 99 %, median", "worst", "nobody", "allowed", "MB per lab and version")
    curves: dict[str, list[float]] = {"median publish": [], "worst publish": [], "allowed": []}
    for peers in labs:
        runs = [one for one in found if one["peers"] == peers]
        middle, worst = median(one["median"] for one in runs), max(one["worst"] for one in runs)
        size = median(one["bytes_per_peer_per_version"] for one in runs) / 1e6
        table.add_row(
            f"{peers:,}", str(len(runs)), f"{middle:.1f}", f"{worst:.1f}", str(sum(one["nobody"] for one in runs)),
            f"{allowed(peers):.1f}", f"{size:.2f}",
            style=None if worst <= allowed(peers) else "red",
        )  # fmt: skip
        for curve, value in zip(curves.values(), (middle, worst, allowed(peers)), strict=True):
            curve.append(value)
    decades = [log10(peers) for peers in labs]
    title = "From a publish until it has reached 99 % of the labs"
    picture = lines(title, "labs, as a power of ten", "version intervals", {k: (decades, v) for k, v in curves.items()})
    (out / "reach.svg").write_text(picture)
    Console().print(table)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.reach", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("out", type=Path, help="where reach.svg and one JSON file for each run go")
    parser.add_argument("--script", type=Path, default=Path("scenarios/many.py"), help="default: %(default)s")
    parser.add_argument("--peers", default="10,100,1000", help="how many labs; 10000 take minutes (%(default)s)")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="default: %(default)s")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        _play(given.out, Script.read(given.script), [*product(numbers(given.peers), numbers(given.seeds))])
    except LocalError as error:
        sys.exit(f"{parser.prog}: {error}")


def _play(out: Path, script: Script, cells: Sequence[tuple[int, int]]) -> None:
    found = []
    for peers, seed in track(cells, "runs", console=Console(stderr=True)):
        file = out / f"{peers}-seed-{seed}.json"
        told = kept(file, {"script": digest(script)})
        found.append(told if told is not None else keep(file, measure(script, peers, seed)))
    show(found, out)


if __name__ == "__main__":
    main()
