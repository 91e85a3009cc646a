"""`demo`: see it work on this machine, measured against the alternatives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click


def _seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    try:
        seeds = [int(seed) for seed in value.split(",")] if value else []
    except ValueError:
        seeds = [-1]
    if min(seeds, default=0) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter("different whole numbers with commas between them, such as 0,1,2")
    return seeds


@click.command()
@click.option("--peers", type=click.IntRange(2, 64), default=4, show_default=True, help="Labs, one process each.")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True),
    help="Data in any layout that `new` takes, to split over the labs, instead of the built-in brains.",
)  # fmt: skip
@click.option(
    "--by", type=click.Choice(["even", "size", "label"]), default="even", show_default=True,
    help="How --data is split, as in `braintorrent split`.",
)  # fmt: skip
@click.option("--versions", type=click.IntRange(1), help="Versions each lab trains (default: 24; --data: by its task).")
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/demo", show_default=True, help="Where everything is written."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of scans, split and start weights.")
@click.option("--seeds", callback=_seeds, metavar="N,N,...", help="Once per seed, in OUT/seed-N; then the spread.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json as one line instead of tables.")
def demo(
    peers: int, data: Path | None, by: Any, versions: int | None, out: Path, seed: int, seeds: list[int], as_json: bool
) -> None:
    """Let several labs on this machine learn together, and compare with what else one could have done.

    Makes semi-synthetic brain scans (or splits --data), starts one real process per lab, shows them learn,
    then compares each lab alone, the peers, a FedAvg server and pooled training on every lab's test cases,
    or on the validation cases of data that has those but no labelled test cases.
    """
    import json

    from braintorrent.experiments import report
    from braintorrent.experiments.demo import Demo
    from braintorrent.node.tables import console as wide_console

    if by != "even" and data is None:
        raise click.UsageError("--by is about --data; the built-in brains differ by scanner")
    console = wide_console(stderr=as_json)
    say = (lambda text: None) if as_json else (lambda text: console.print(text, highlight=False, style="dim"))
    places = {one: out / f"seed-{one}" for one in seeds} or {seed: out}
    found = []
    for one, place in places.items():
        job = Demo(place, peers, data, versions, one, say, by=by)
        found.append(_run(job, console, as_json))
        if as_json and not seeds:
            click.echo(json.dumps(found[0]))
        elif not as_json:
            console.print(report.table(found[-1]))
            console.print(f"report:  {place / 'report.json'}\npicture: {place / 'report.png'}", highlight=False)
    if seeds:
        spread = {"seeds": seeds, "score": found[0]["score"], "part": found[0]["part"], "rows": report.spread(found)}
        report.write(spread, out / "spread.json")
        click.echo(json.dumps(spread)) if as_json else console.print(report.spread_table(found))
    elif not as_json:
        console.print(
            f"try next: your own scans       braintorrent demo --data DATA --out {out}-2\n"
            "          two labs by hand     see README.md, or: braintorrent --help\n"
            f"          what a peer did      ls {out / 'peers' / 'lab-a' / 'state'}",
            highlight=False,
        )


def _run(job: Any, console: Any, quiet: bool) -> dict[str, Any]:
    """Prepare, run and compare one demo; its report."""
    from braintorrent.experiments.live import progress_bar, watch_live
    from braintorrent.experiments.processes import Processes

    folders = job.prepare()
    job.say(f"{job.peers} labs in {job.out / 'peers'}; each is one process, found by mDNS, talking over mutual TLS")
    with Processes(folders) as running:
        try:
            with job.timed("peers"):
                watch_live(running, quiet=quiet)
        except KeyboardInterrupt:
            click.echo("ending all peers at their next batch ...", err=True)
            running.stop()
            sys.exit(130)
        with progress_bar(console, "baselines", quiet=quiet) as progress:
            found: dict[str, Any] = job.evaluate(folders, running, progress)
    return found
