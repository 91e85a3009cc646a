"""`status`: what a running peer is doing, whom it knows, what it skipped and why; or how the last one ended."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from braintorrent.cli._folder import folder_argument


@click.command()
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (with --watch: one per second).")
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C or the peer ends.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Show what the peer running in FOLDER is doing.

    Exit code 1 if none runs there, or does not answer yet or any more: then this says what is left of the last one.
    """
    from braintorrent.node.control import read_status
    from braintorrent.node.lab import check_folder

    check_folder(folder)
    found = read_status(folder)
    if found is None:
        _not_running(folder, as_json)
        sys.exit(1)
    with contextlib.suppress(KeyboardInterrupt):  # is how a watch ends
        _show(folder, found, as_json=as_json, watch=watch)


def _show(folder: Path, found: dict[str, Any], *, as_json: bool, watch: bool) -> None:
    from braintorrent.node.control import read_status

    now: dict[str, Any] | None = found
    if as_json:
        while now is not None:
            click.echo(json.dumps({"running": True, **now}))
            if not watch:
                break
            time.sleep(1)
            now = read_status(folder)
        return
    from rich.live import Live

    from braintorrent.node.tables import console as wide_console
    from braintorrent.node.tables import one_peer

    console = wide_console()
    if not watch:
        console.print(one_peer(found))
        return
    with Live(one_peer(found), console=console, refresh_per_second=4) as live:
        while (now := read_status(folder)) is not None:
            live.update(one_peer(now))
            time.sleep(0.5)


def _not_running(folder: Path, as_json: bool) -> None:
    from braintorrent.node.control import ended, holder, last_status

    process = holder(folder)
    if process is not None:
        ending = (last_status(folder) or {}).get("pid") == process
        doing = "ending" if ending else "starting"
        click.echo(json.dumps({"running": False, "doing": doing, "pid": process}) if as_json else
                   f"{folder}: {doing} (process {process})")  # fmt: skip
        return
    last = ended(folder)
    if as_json:
        click.echo(json.dumps(last))
        return
    click.echo(f"braintorrent: no peer runs in {folder}; start one with: braintorrent run {folder}", err=True)
    if last["clean"] is not None:
        _say_last(folder, last)


def _say_last(folder: Path, last: dict[str, Any]) -> None:
    from braintorrent.node.tables import scores
    from braintorrent.storage import StatePaths

    how = "cleanly" if last["clean"] else "without a farewell (killed, or the machine went down)"
    final = " (final)" if last.get("final") else ""
    models = ", ".join(str(path) for path in sorted(StatePaths(folder).models.glob("*.safetensors")))
    click.echo(f"the last one ended {how} at version {last['versions']}{final}")
    click.echo(f"scores:  {scores(last) or 'none'}\nmodels:  {models or 'none kept yet'}")
    if last.get("goes_on"):
        click.echo(last["goes_on"])
    if names := last.get("contains_revoked"):
        first = f"to go back: braintorrent rollback --before {names[0]} -C {folder}"
        click.echo(f"revoked: the model contains {', '.join(names)} (braintorrent lineage -C {folder}); {first}")
