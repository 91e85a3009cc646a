"""`python -m braintorrent.experiments.paper DATA OUT`: the setting of Roy et al. (arXiv:1905.06731) on DATA, a table.

So many labs share out DATA, evenly or unevenly (lab k of n gets k / (1 + ... + n) of the cases). One after the other,
drawn at random, asks all others, merges what is newer and trains: the node's protocol and learners in virtual time.

    local         each lab alone, as many steps
    fedavg        a FedAvg server, as many rounds
    own           BrainTorrent, each lab after its last local steps
    braintorrent  as it ends, after one more merge
    aggregate     the sample-weighted mean of `own`, from outside
    pooled        all scans in one place, as many steps as all labs took

Every model is scored on the test cases of all labs as one set. Writes OUT/cells/*.json, one file per part of a cell,
and leaves those alone that are there: what was interrupted goes on. Then OUT/paper.json, and the table.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from braintorrent.errors import BrainTorrentError, LocalError
from braintorrent.experiments.cells import data_digest, keep, kept, numbers
from braintorrent.experiments.paper_cell import SPLITS, WAYS, Job, perform
from braintorrent.experiments.workers import GONE, ended_in_order, given_up
from braintorrent.learning.opening import cores

LABS, SEEDS, VERSIONS = (5, 7, 10, 20), (0, 1, 2), 10
WIDE = 120  # characters of the tables, also in a log file
ROWS: tuple[tuple[str, str, Callable[[Sequence[float]], float]], ...] = (
    ("local", "each lab alone", fmean),
    ("local", "  the worst lab", min),
    ("fedavg", "FedAvg server", fmean),
    ("own", "BrainTorrent peers after their last local steps", fmean),
    ("own", "  the worst peer", min),
    ("braintorrent", "BrainTorrent peers as they end", fmean),
    ("braintorrent", "  the worst peer", min),
    ("aggregate", "aggregate, from outside", fmean),
    ("pooled", "pooled", fmean),
)


def make(
    jobs: Sequence[Job], data: Path, cells: Path, of: Mapping[str, str], workers: int, say: Callable[[str], None]
) -> list[str]:  # fmt: skip
    """Write the cells that are missing in `cells`, so many at once; what went wrong, in words."""
    troubles = []
    with given_up(workers) as processes:
        doing = {processes.submit(perform, job, data, cells, of): job for job in jobs if not job.file(cells).exists()}
        for number, done in enumerate(as_completed(doing), 1):
            try:
                cell = done.result()
                rows = ", ".join(f"{row} {fmean(scores):.3f}" for row, scores in cell["scores"].items())
                say(f"{number} of {len(doing)}: {doing[done].name}: {rows} ({cell['seconds']:g} s)")
            except BrokenProcessPool:
                return [f"{doing[done].name}, or another cell beside it: {GONE}"]
            except Exception as error:  # of one cell; the others go on
                kind = "" if isinstance(error, BrainTorrentError) else f"{type(error).__name__}: "
                troubles.append(f"{doing[done].name}: {kind}{error}")
    return troubles


def there(jobs: Sequence[Job], cells: Path, of: Mapping[str, str]) -> list[dict[str, Any]]:
    """The cells that are there. ConfigError if one is of other versions or data, or was trained elsewhere."""
    found = (kept(job.file(cells), {"versions": job.versions, **of}) for job in jobs)
    return [cell for cell in found if cell is not None]


def tables(cells: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """One for each split: mean over seeds ± spread (most less least) over seeds, for each number of labs."""
    for split in sorted({cell["split"] for cell in cells}):
        counts = sorted({cell["labs"] for cell in cells if cell["split"] == split})
        shown = Table(split, *(f"{labs} labs" for labs in counts))
        for row, words, over in ROWS:
            of = [[over(scores) for scores in _scores(cells, split, labs, row)] for labs in counts]
            shown.add_row(words, *map(_over_seeds, of))
        yield shown


def _over_seeds(values: Sequence[float]) -> str:
    spread = f" ± {max(values) - min(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}" if values else ""


def _scores(cells: Sequence[Mapping[str, Any]], split: str, labs: int, row: str) -> list[Sequence[float]]:
    here = [cell["scores"] for cell in cells if (cell["split"], cell["labs"]) == (split, labs)]
    return [scores[row] for scores in here if row in scores]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.paper", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", type=Path, help="a data folder with labels, such as Task04_Hippocampus")
    parser.add_argument("out", type=Path, help="where paper.json and cells/ go")
    parser.add_argument("--labs", type=numbers, default=LABS, metavar="5,7,...", help="default: 5,7,10,20")
    parser.add_argument("--seeds", type=numbers, default=SEEDS, metavar="0,1,...", help="default: 0,1,2")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=tuple(SPLITS))
    parser.add_argument("--versions", type=int, default=VERSIONS, help=f"of each lab (default: {VERSIONS})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--workers", type=int, default=cores(), help="cells at once (default: one per core)")
    given, console = parser.parse_args(argv), Console(width=WIDE, highlight=False)
    jobs = [
        Job(labs, split, seed, way, given.versions)
        for seed in given.seeds
        for labs in sorted(given.labs, reverse=True)  # the longest first, so that no core waits for one at the end
        for split in given.splits
        for way in WAYS
    ]
    cells = given.out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    try:
        of = {"data": data_digest(given.data), "device": given.device}
        there(jobs, cells, of)
    except LocalError as error:
        sys.exit(f"{parser.prog}: {error}")
    try:
        with ended_in_order():
            troubles = make(jobs, given.data, cells, of, given.workers, console.print)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is there is shown all the same
        troubles = ["interrupted; the same command goes on with what is missing"]
    found = there(jobs, cells, of)
    keep(given.out / "paper.json", {"data": given.data.name, "cells": found})
    console.print(f"Scores on the test cases of all labs, after {given.versions} versions of each lab:")
    for one in tables(found):
        console.print(one)
    if len(given.seeds) > 1:
        console.print("±: the best seed less the worst")
    if troubles:
        sys.exit("\n".join(troubles))


if __name__ == "__main__":
    main()
