"""`backup` and `restore`: who this lab is, in one file."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.argument("folder", type=click.Path(path_type=Path))
FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@FOLDER
@FILE
@click.option("--password", is_flag=True, help="Ask for a password, and encrypt the private key with it.")
def backup(folder: Path, file: Path, password: bool) -> None:
    """Write identity and roster of the peer in FOLDER to FILE.

    FILE holds the private key: whoever has it can be this lab. Keep it where only you can read it, or use
    --password. Models and ledger are not in it: after a restore the other labs' models are fetched again.
    A running node is not disturbed.
    """
    from braintorrent.node.backup import write_backup

    secret = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True) if password else None
    peer = write_backup(folder, file, secret)
    how = "encrypted" if secret else "not encrypted: keep it secret"
    click.echo(f"{file}: identity and roster of {peer} ({how})")


@click.command()
@FOLDER
@FILE
@click.option("--replace", is_flag=True, help="Also if FOLDER is another peer now; its state is moved aside, not lost.")
def restore(folder: Path, file: Path, replace: bool) -> None:
    """Make FOLDER the peer that `braintorrent backup` wrote to FILE.

    FOLDER holds a peer.toml; no node may run in it. Other labs know the peer by its key, so nobody has to trust
    it anew. It begins a life of its own: version numbers never repeat.
    """
    from braintorrent.node.backup import read_backup, restore_backup

    found = read_backup(file)
    secret = click.prompt("password", hide_input=True, err=True) if found.encrypted else None
    for line in restore_backup(folder, found, secret, replace=replace):
        click.echo(line)
