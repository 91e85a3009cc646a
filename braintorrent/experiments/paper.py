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
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from braintorrent.errors import BrainTorrentError, ConfigError, LocalError
from braintorrent.experiments.paper_cell import SPLITS, WAYS, Job, perform
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
    jobs: Sequence[Job], data: Path, cells: Path, device: str, workers: int, say: Callable[[str], None]
) -> list[str]:  # fmt: skip
    """Write the cells that are missing in `cells`, so many at once; what went wrong, in words."""
    troubles = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as processes:
        doing = {
            processes.submit(perform, job, data, cells, device): job for job in jobs if not job.file(cells).exists()
        }
        try:
            for number, done in enumerate(as_completed(doing), 1):
                try:
                    cell = done.result()
                    rows = ", ".join(f"{row} {fmean(scores):.3f}" for row, scores in cell["scores"].items())
                    say(f"{number} of {len(doing)}: {doing[done].name}: {rows} ({cell['seconds']:g} s)")
                except Exception as error:  # of one cell; the others go on
                    kind = "" if isinstance(error, BrainTorrentError) else f"{type(error).__name__}: "
                    troubles.append(f"{doing[done].name}: {kind}{error}")
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise
    return troubles


def kept(jobs: Sequence[Job], cells: Path) -> list[dict[str, Any]]:
    """The cells that are there. ConfigError if one is of another number of versions."""
    found = [json.loads(path.read_text()) for job in jobs if (path := job.file(cells)).exists()]
    if others := {cell["versions"] for cell in found} - {job.versions for job in jobs}:
        raise ConfigError(f"{cells}: holds cells of {min(others)} versions; move them away, or give another OUT")
    return found


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a cell that is interrupted is made anew
    os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"] = "1", "passive"


def tables(cells: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """One for each split: mean over seeds ± spread (most less least) over seeds, for each number of labs."""
    for split in sorted({cell["split"] for cell in cells}):
        counts = sorted({cell["labs"] for cell in cells if cell["split"] == split})
        shown = Table(split, *(f"{labs} labs" for labs in counts))
        for row, words, over in ROWS:
            of = [[over(scores) for scores in _scores(cells, split, labs, row)] for labs in counts]
            shown.add_row(words, *(f"{fmean(v):.3f} ± {max(v) - min(v):.3f}" if v else "" for v in of))
        yield shown


def _scores(cells: Sequence[Mapping[str, Any]], split: str, labs: int, row: str) -> list[Sequence[float]]:
    here = [cell["scores"] for cell in cells if (cell["split"], cell["labs"]) == (split, labs)]
    return [scores[row] for scores in here if row in scores]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m braintorrent.experiments.paper", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", type=Path, help="a data folder with labels, such as Task04_Hippocampus")
    parser.add_argument("out", type=Path, help="where paper.json and cells/ go")
    parser.add_argument("--labs", type=_numbers, default=LABS, metavar="5,7,...", help="default: 5,7,10,20")
    parser.add_argument("--seeds", type=_numbers, default=SEEDS, metavar="0,1,...", help="default: 0,1,2")
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
        kept(jobs, cells)
        troubles = make(jobs, given.data, cells, given.device, given.workers, console.print)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is there is shown all the same
        troubles = ["interrupted; the same command goes on with what is missing"]
    except LocalError as error:
        sys.exit(f"{parser.prog}: {error}")
    found = kept(jobs, cells)
    (given.out / "paper.json").write_text(json.dumps({"data": given.data.name, "cells": found}, indent=1) + "\n")
    console.print(f"Scores on the test cases of all labs, after {given.versions} versions of each lab:")
    for one in tables(found):
        console.print(one)
    if troubles:
        sys.exit("\n".join(troubles))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
