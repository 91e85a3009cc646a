"""`check`: the preflight of a peer folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from braintorrent.cli._folder import folder_argument

if TYPE_CHECKING:
    from braintorrent.workbench.check_findings import Report


@click.command()
@folder_argument
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object: ready, errors, warnings, findings, facts."
)
@click.option("--quick", is_flag=True, help="No training steps: does not measure memory and seconds per version.")
@click.option("--all", "show_all", is_flag=True, help="Show every finding, also the many of one kind.")
def check(folder: Path, as_json: bool, quick: bool, show_all: bool) -> None:
    """Look for everything that would go wrong in FOLDER, before it runs.

    Reads every case: damaged files, label and image that do not lie in one place, labels outside the map, one
    subject in two parts, the same image twice, odd spacing or size. Trains a few real steps to tell memory and
    time. Looks at configuration, key, disk, clock, port and mDNS. All faults are listed, not only the first.

    Nothing of your data or model leaves the machine; no peer is dialled. What is sent is one mDNS probe with a
    random name on the local network (not with discovery = false) and look-ups of static peers' names. File names
    are shown here, and nowhere else. Writes nothing; may run beside a node.

    Exit code 0: ready, maybe with warnings. 1: errors. 2: FOLDER is no peer folder.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from braintorrent.node.tables import console
    from braintorrent.workbench.check import check as check_peer

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading the configuration", total=None)
        report = check_peer(
            folder, quick=quick,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(report.plain()))
    else:
        _show(report, None if show_all else 8)
    sys.exit(0 if report.ready else 1)


def _show(report: Report, most: int | None) -> None:
    from braintorrent.node.tables import console
    from braintorrent.workbench.check_tables import findings, labels, summary

    out = console()
    for group in report.groups:
        out.print(findings(group, most))
    if (histogram := labels(report)) is not None:
        out.print(histogram)
    out.print(summary(report))
