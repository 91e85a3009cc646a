"""`launch`: every peer folder below a folder, one process each, in one live table."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("root", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print one object at the end instead of the live table.")
@click.option("--prepare", is_flag=True, help="Make missing example scans, then stop: nothing runs, nobody is trusted.")
def launch(root: Path, as_json: bool, prepare: bool) -> None:
    """Run every peer folder below ROOT on this machine, one process each.

    Keys are made and rosters filled, so that all of them trust each other, whoever was taken off one included.
    Ctrl-C ends all, cleanly; the next launch goes on where they stopped. Exit code 0 if every peer ended with 0.
    """
    import json

    from braintorrent.experiments.live import watch_live
    from braintorrent.experiments.processes import Processes, introduce, peer_folders
    from braintorrent.experiments.recipe import make_missing
    from braintorrent.storage import StateFolder

    folders, made = peer_folders(root), False

    def say(text: str) -> None:
        nonlocal made
        made = True
        click.echo(text, err=True)

    make_missing(root, folders, say)
    if prepare:
        what = "the scans are made" if made else "nothing to make"
        click.echo(f"{what}; next: braintorrent launch {root}, or by hand: braintorrent id {folders[0]}", err=True)
        return
    for folder in folders:
        StateFolder(folder).close()  # none runs already: a running lab would trust the others all at once
    introduce(folders, say)
    with Processes(folders) as peers:
        try:
            watch_live(peers, quiet=as_json)
        except KeyboardInterrupt:
            click.echo("ending all peers at their next batch ...", err=True)
            peers.stop()
            click.echo("all stopped; the next launch goes on", err=True)
    if as_json:
        click.echo(json.dumps({"peers": peers.last, "exit": peers.ended}))
    for folder in folders:
        if peers.ended[peers.names[folder]]:
            click.echo(f"{peers.names[folder]}:\n{peers.last_words(folder)}", err=True)
    sys.exit(0 if not any(peers.ended.values()) else 1)
