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
    from braintorrent.config import load_peer
    from braintorrent.node.lab import address_hints, ensure_identity
    from braintorrent.node.roster import line_of

    identity, name, addresses = ensure_identity(folder), load_peer(folder).name, address_hints(folder)
    line = line_of(name, identity.id, addresses)
    if as_json:
        click.echo(json.dumps({"name": name, "id": identity.id, "addresses": addresses, "line": line}))
    else:
        click.echo(line)


@click.command()
@click.argument("line", required=False)
@click.option(
    "-C",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="The peer folder (default: here).",
)
@click.option("--replace", is_flag=True, help="Take LINE also if its name has another id here, or its id another name.")
@click.option("--remove", metavar="NAME", help="Take the trust in the peer called NAME back.")
@click.option("--lift", metavar="NAME", help="End the quarantine of the peer called NAME, which signed two contents.")
def trust(line: str | None, folder: Path, replace: bool, remove: str | None, lift: str | None) -> None:
    """Put the peer that LINE names on this peer's roster.

    LINE is what `braintorrent id` printed in the other lab, in quotes. Both sides do it. A running node
    notices within two seconds.
    """
    if sum(given is not None for given in (line, remove, lift)) != 1:
        raise click.UsageError("give one of: LINE, --remove NAME, --lift NAME", click.get_current_context())
    if line is not None:
        _add(folder, line, replace)
    elif remove is not None:
        _remove(folder, remove)
    elif lift is not None:
        _lift(folder, lift)


def _add(folder: Path, line: str, replace: bool) -> None:
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.roster import parse_line
    from braintorrent.node.trusting import trust as put_on_roster
    from braintorrent.storage import StatePaths

    peer, member = parse_line(line)
    put_on_roster(StatePaths(folder), ensure_identity(folder), peer, member, replace=replace)
    click.echo(f"{folder}: trusts {member.name} {peer[:7]}")


def _remove(folder: Path, name: str) -> None:
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.trusting import untrust
    from braintorrent.storage import StatePaths

    for peer in untrust(StatePaths(folder), ensure_identity(folder), name):
        click.echo(f"{folder}: trusts {name} {peer[:7]} no more")


def _lift(folder: Path, name: str) -> None:
    from braintorrent.errors import ConfigError
    from braintorrent.node.control import holder
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.roster import Roster
    from braintorrent.storage import Ledger, StatePaths

    identity, paths = ensure_identity(folder), StatePaths(folder)
    roster = Roster(paths.roster)
    lifted = 0
    if paths.ledger.exists():
        with Ledger(paths.ledger, identity=identity) as ledger:
            entries = ledger.entries(identity.id)
            for peer in roster.named(name) & entries.keys():
                for incarnation in entries[peer].quarantined:
                    ledger.lift(peer, incarnation)
                    lifted += 1
    if not lifted:
        raise ConfigError(f"{folder}: nobody called {name} is in quarantine; on the roster: {roster.names or 'nobody'}")
    process = holder(folder)
    later = f"; process {process} runs: it takes effect when that is started again" if process else ""
    click.echo(f"{folder}: the quarantine of {name} is lifted{later}")
