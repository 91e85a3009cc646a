"""`simulate`: stories of churn in virtual time, many at once; and `main`, the command line of each such script."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from braintorrent import cli
from braintorrent.cli._pages import MALLOC, SMALL_OBJECTS, with_large_pages

if TYPE_CHECKING:
    from braintorrent.simulation.scenario import Scenario

SHOWN = (
    "versions_published", "versions_lost", "intervals_to_99", "bytes_per_peer_per_version", "distance_to_optimum",
    "wall_seconds",
)  # fmt: skip
LEGEND = (
    "versions lost: held by no lab, and superseded by none. intervals to 99: version intervals from a publish until "
    "99 % of the labs hold it or a model that merged it, the median of publishes in the second and third tenth of the "
    "run. distance to optimum: of the labs' models in the end, on average. –: not within the run."
)
PEERS = click.option("--peers", type=click.IntRange(2, 100_000), help="How many labs (default: the script's own).")
OUT = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False),
    help="Write a page and JSON per run, and an index.html over all that lie there.",
)  # fmt: skip
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one object per run, nothing else on stdout.")


@click.command()
@click.argument("scripts", nargs=-1, required=True, metavar="SCRIPT...", type=click.Path(path_type=Path))
@PEERS
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first one.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="How many, from --seed upwards.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Runs at once, one core each.")
@click.option(
    "--engine", type=click.Choice(["processes", "ray"]), default="processes", show_default=True,
    help="processes: on this machine. ray: on the cluster of RAY_ADDRESS, or on this machine without one.",
)  # fmt: skip
@OUT
@AS_JSON
def simulate(
    scripts: tuple[Path, ...], peers: int | None, seed: int, seeds: int, workers: int, engine: str,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Play stories of churn in virtual time, on the protocol that runs in every node, and compare them.

    SCRIPT is a Python file that defines `scenario(peers)`, such as those of scenarios/; it is executed. The same
    script, peers and seed give the same run, whatever the machine: compare `trace_digest`. Ctrl-C keeps what is done.
    What learns here is a stand-in; a script that is run by itself takes --real, and --data for networks on scans.

    \b
    braintorrent simulate scenarios/*.py --seeds 5 --workers 2 --out reports/
    braintorrent simulate scenarios/steady.py --peers 1000 --json
    python scenarios/steady.py --help        (each also runs by itself: --real, --data)
    """
    from braintorrent.experiments.scenes import Script
    from braintorrent.experiments.sweep import ENGINES, Job

    jobs = [Job(script, one, peers) for script in map(Script.read, scripts) for one in range(seed, seed + seeds)]
    troubles = 0
    with _kept(out, as_json) as keep, _bar(as_json) as advance, closing(ENGINES[engine](jobs, workers)) as results:
        for number, done in enumerate(results, start=1):
            if done.run is None:
                troubles += 1
                click.echo(f"braintorrent: {done.trouble}", err=True)
            else:
                keep(done.run)
            advance(str(done.job), number, len(jobs))
    if troubles:
        sys.exit(1)


def main(build: Callable[..., Scenario]) -> None:
    """The command line of a script: `build(peers)` says what happens, the script's docstring what that teaches."""
    script = Path(build.__code__.co_filename).resolve()
    if script in (Path(word).resolve() for word in sys.orig_argv[1:]):  # it is what this process runs
        real = any(word.startswith(("--real", "--data")) for word in sys.argv)  # labs have no other memory than users'
        with_large_pages(MALLOC, *([] if real else [SMALL_OBJECTS]))
    cli.main(_command(build))


def _command(build: Callable[..., Scenario]) -> click.Command:
    name = Path(build.__code__.co_filename).stem

    @click.command(name, help=build.__globals__["__doc__"], context_settings=cli.CONTEXT)
    @PEERS
    @click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Decides a virtual run, to the byte."
    )
    @click.option(
        "--virtual/--real", default=True, help="In virtual time (default), or one `braintorrent run` per lab."
    )
    @click.option(
        "--data", type=click.Path(path_type=Path, exists=True),
        help="Scans to deal to the labs, which train networks on them; default: a stand-in learns.",
    )  # fmt: skip
    @click.option(
        "--workers", type=click.IntRange(0),
        help="Processes that train, with --data in virtual time (default: one per core). The run is the same.",
    )  # fmt: skip
    @click.option(
        "--engine", type=click.Choice(["processes", "ray"]),
        help="Where those are. processes (default): on this machine. ray: on the cluster of RAY_ADDRESS, each machine "
        "of which has the scans at the same path, or on this machine without one.",
    )  # fmt: skip
    @OUT
    @AS_JSON
    def command(
        peers: int | None, seed: int, virtual: bool, data: Path | None, workers: int | None, engine: str | None,
        out: Path | None, as_json: bool,
    ) -> None:  # fmt: skip
        from tempfile import TemporaryDirectory

        from braintorrent.experiments.scenes import play
        from braintorrent.experiments.workers import ended_in_order

        if engine and (data is None or not virtual):
            raise click.UsageError(
                "--engine is about networks that train on --data in virtual time", click.get_current_context()
            )
        scenario = build() if peers is None else build(peers)
        room = TemporaryDirectory(prefix=f"{name}-")
        with ended_in_order(), _told(name), room as folder, _kept(out, as_json) as keep:
            with _bar(as_json) as advance:
                real = None if virtual else Path(folder)
                run = play(
                    scenario, seed, real, data, lambda share: advance(name, round(100 * share), 100), workers,
                    engine or "processes",
                )  # fmt: skip
            keep(run)

    return command


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"braintorrent: {name} was interrupted; nothing of it is kept", err=True)
        raise


@contextmanager
def _kept(out: Path | None, as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Takes runs as they end; shows and writes them. In the end, whatever that is, the index and the table."""
    from braintorrent.experiments import pages

    runs: list[dict[str, Any]] = []

    def keep(run: dict[str, Any]) -> None:
        runs.append(run)
        if out is not None:
            pages.write(run, out)
        if as_json:
            click.echo(json.dumps(run["figures"]))

    try:
        yield keep
    finally:
        if runs and not as_json:
            _print(runs)
        if runs and out is not None:
            click.echo(f"report: {pages.index(out)}", err=as_json)


def _bar(quiet: bool) -> Any:
    from braintorrent.experiments.live import progress_bar
    from braintorrent.node.tables import console

    return progress_bar(console(stderr=True), "starting", quiet=quiet)


def _print(runs: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from braintorrent.experiments.pages import number
    from braintorrent.experiments.scenes import run_name
    from braintorrent.node.tables import console

    table = Table(*(key.replace("_", " ") for key in ("run", *SHOWN)), header_style="bold")
    table.columns[0].overflow = "fold"
    for run in sorted(runs, key=run_name):
        table.add_row(run_name(run), *(number(run["figures"].get(key)) for key in SHOWN))
    console().print(table)
    console().print(LEGEND, style="dim", highlight=False)
