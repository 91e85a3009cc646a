"""`id` and `trust`: who I am, and whom I trust."""

from __future__ import annotations

import json
from pathlib import Path

import click

from braintorrent.cli._folder import folder_argument


@click.command("id")
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print an object instead of a line.")
def id(folder: Path, as_json: bool) -> None:
    """Print this peer's line: name, peer id, address hints.

    Makes the key if there is none. Give the line to the labs that shall trust this peer; it is not secret,
    but it must reach them unchanged: compare it by phone, or send it where nobody can alter it.
    """
    from braintorrent.node.lab import address_hints, display_name, ensure_identity

    identity, name, addresses = ensure_identity(folder), display_name(folder), address_hints(folder)
    if as_json:
        click.echo(json.dumps({"name": name, "id": identity.id, "addresses": addresses}))
    else:
        click.echo(" ".join([name, identity.id, *([",".join(addresses)] if addresses else [])]))


@click.command()
@click.argument("line")
@click.option(
    "-C",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="The peer folder (default: here).",
)
def trust(line: str, folder: Path) -> None:
    """Put the peer that LINE names on this peer's roster.

    LINE is what `braintorrent id` printed in the other lab, in quotes. Both sides do it. A running node
    notices within two seconds.
    """
    from braintorrent.errors import ConfigError
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.roster import Roster, parse_line
    from braintorrent.storage import StatePaths

    peer, member = parse_line(line)
    if peer == ensure_identity(folder).id:
        raise ConfigError("this line is this peer's own; trust takes the other lab's line")
    Roster(StatePaths(folder).roster).add(peer, member)
    click.echo(f"{folder}: trusts {member.name} {peer[:7]}")
