"""`demo`: see it work on this machine, measured against the alternatives."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option("--peers", type=click.IntRange(2, 64), default=4, show_default=True, help="Labs, one process each.")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A Medical Segmentation Decathlon folder to split over the labs, instead of the built-in brains.",
)  # fmt: skip
@click.option("--versions", type=click.IntRange(1), help="Versions each lab trains (default: 32, with --data 14).")
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/demo", show_default=True, help="Where everything is written."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of scans, split and start weights.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json as one line instead of tables.")
def demo(peers: int, data: Path | None, versions: int | None, out: Path, seed: int, as_json: bool) -> None:
    """Let several labs on this machine learn together, and compare with what else one could have done.

    Makes semi-synthetic brain scans (or splits --data), starts one real process per lab, shows them learn,
    then compares each lab alone, the peers, a FedAvg server and pooled training on every lab's test cases.
    """
    import json

    from braintorrent.experiments import report
    from braintorrent.experiments.demo import Demo
    from braintorrent.experiments.live import progress_bar, watch_live
    from braintorrent.experiments.processes import Processes
    from braintorrent.node.tables import console as wide_console

    console = wide_console(stderr=as_json)
    say = (lambda text: None) if as_json else (lambda text: console.print(text, highlight=False, style="dim"))
    job = Demo(out, peers, data, versions, seed, say)
    folders = job.prepare()
    say(f"{peers} labs in {out / 'peers'}; each is one process, found by mDNS, talking over mutual TLS")
    with Processes(folders) as running:
        try:
            with job.timed("peers"):
                watch_live(running, quiet=as_json)
        except KeyboardInterrupt:
            click.echo("ending all peers at their next batch ...", err=True)
            running.stop()
            sys.exit(130)
        with progress_bar(console, "baselines", quiet=as_json) as progress:
            found = job.evaluate(folders, running, progress)
    if as_json:
        click.echo(json.dumps(found))
        return
    console.print(report.table(found))
    console.print(f"report:  {out / 'report.json'}\npicture: {out / 'report.png'}", highlight=False)
    console.print(
        f"try next: your own scans       braintorrent demo --data TASK_FOLDER --out {out}-2\n"
        "          two labs by hand     see README.md, or: braintorrent --help\n"
        f"          what a peer did      ls {folders[0] / 'state'}",
        highlight=False,
    )
