"""`status`: what a running peer is doing, whom it knows, what it skipped and why."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from braintorrent.cli._folder import folder_argument


@click.command()
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (with --watch: one per second).")
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C or the peer ends.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Show what the peer running in FOLDER is doing. Exit code 1 if none runs there."""
    from braintorrent.node.control import last_status, read_status

    found = read_status(folder)
    if found is None:
        before = last_status(folder)
        last = f" (the last one ended at version {before['versions']})" if before else ""
        raise click.ClickException(f"no peer runs in {folder}{last}; start one with: braintorrent run {folder}")
    if as_json:
        while found is not None:
            click.echo(json.dumps(found))
            if not watch:
                break
            time.sleep(1)
            found = read_status(folder)
        return
    from rich.console import Console
    from rich.live import Live

    from braintorrent.node.tables import one_peer

    console = Console()
    if not watch:
        console.print(one_peer(found))
        return
    with Live(one_peer(found), console=console, refresh_per_second=4) as live:
        while (found := read_status(folder)) is not None:
            live.update(one_peer(found))
            time.sleep(0.5)
