"""`id` and `trust`: who I am, and whom I trust."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from braintorrent.cli._folder import folder_argument

if TYPE_CHECKING:
    from braintorrent.protocol.notices import Notice


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
@click.option("--replace", is_flag=True, help="Take LINE also if its name or id is taken here, or it was revoked.")
@click.option("--name", metavar="NAME", help="What to call the lab of LINE, or of --accept, here.")
@click.option("--remove", metavar="NAME", help="Take the trust in the peer called NAME back, and tell nobody.")
@click.option("--lift", metavar="NAME", help="End the quarantine of the peer called NAME, which signed two contents.")
@click.option("--accept", metavar="NAME", help="Do what another lab advises about NAME (see: braintorrent roster).")
@click.option("--decline", metavar="NAME", help="Do not.")
@click.option("--yes", is_flag=True, help="With --accept: ask nothing.")
def trust(
    line: str | None, folder: Path, replace: bool, name: str | None, remove: str | None, lift: str | None,
    accept: str | None, decline: str | None, yes: bool,
) -> None:  # fmt: skip
    """Put the peer that LINE names on this peer's roster.

    LINE is what `braintorrent id` printed in the other lab, in quotes. Both sides do it. A running node
    notices within two seconds.

    What other labs advise (braintorrent roster shows it) is done by --accept: a lab that they introduced is trusted,
    one that they revoked is trusted no more. It says which, and asks.
    """
    if sum(given is not None for given in (line, remove, lift, accept, decline)) != 1:
        one = "give one of: LINE, --accept NAME, --decline NAME, --remove NAME, --lift NAME"
        raise click.UsageError(one, click.get_current_context())
    if line is not None:
        _add(folder, line, name, replace)
    elif accept is not None:
        _accept(folder, accept, name, yes=yes)
    elif decline is not None:
        _decline(folder, decline)
    elif remove is not None:
        _remove(folder, remove)
    elif lift is not None:
        _lift(folder, lift)


def _add(folder: Path, line: str, name: str | None, replace: bool) -> None:
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.roster import parse_line
    from braintorrent.node.trusting import trust as put_on_roster
    from braintorrent.storage import StatePaths

    peer, member = parse_line(line, name)
    _check_name(folder, member.name)
    put_on_roster(StatePaths(folder), ensure_identity(folder), peer, member, replace=replace)
    click.echo(f"{folder}: trusts {member.name} {peer[:7]}")


def _check_name(folder: Path, name: str) -> None:
    """Two labs of one name could not be told apart in any table."""
    from braintorrent.config import load_peer
    from braintorrent.errors import ConfigError
    from braintorrent.node.lab import check_folder
    from braintorrent.node.roster import alike

    check_folder(folder)
    if alike(name, load_peer(folder).name):
        raise ConfigError(f"{folder}: this lab itself is called {name}; call the other one differently: --name OTHER")


def _accept(folder: Path, name: str, called: str | None, *, yes: bool) -> None:
    from braintorrent.node.advice import advice, question
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.members import pick
    from braintorrent.node.roster import Roster
    from braintorrent.node.trusting import heed
    from braintorrent.protocol.notices import Introduction, Revocation
    from braintorrent.storage import StatePaths

    identity, (notice, *others) = ensure_identity(folder), pick(folder, name)
    if isinstance(notice, Introduction):
        _check_name(folder, called or notice.name)
    paths = StatePaths(folder)
    if not yes and not _confirmed(question(advice(notice, Roster(paths.roster), folder))):
        raise click.ClickException("nothing was changed")
    heed(paths, identity, notice, name=called or "")
    _refuse(folder, others)
    verb = "trusts no more:" if isinstance(notice, Revocation) else "trusts"
    click.echo(f"{folder}: {verb} {called or name} {notice.peer[:7]}")


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question)
    except click.Abort:  # Ctrl-C, or no terminal to ask on
        click.echo(err=True)
        raise click.ClickException("nothing was changed; --yes asks nothing") from None


def _decline(folder: Path, name: str) -> None:
    from braintorrent.node.lab import check_folder
    from braintorrent.node.members import pick

    check_folder(folder)
    found = pick(folder, name)
    _refuse(folder, found)
    click.echo(f"{folder}: {len(found)} notice{'s' if len(found) > 1 else ''} about {name} declined")


def _refuse(folder: Path, notices: Iterable[Notice]) -> None:
    from braintorrent.node.lab import ensure_identity
    from braintorrent.storage import Ledger, StatePaths

    with Ledger(StatePaths(folder).ledger, identity=ensure_identity(folder)) as ledger:
        for notice in notices:
            ledger.keep_notice(notice.raw, "refused")


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
            for peer in roster.lives(roster.named(name)) & entries.keys():
                for incarnation in entries[peer].quarantined:
                    ledger.lift(peer, incarnation)
                    lifted += 1
    if not lifted:
        raise ConfigError(f"{folder}: nobody called {name} is in quarantine; on the roster: {roster.names or 'nobody'}")
    process = holder(folder)
    later = f"; process {process} runs: it takes effect when that is started again" if process else ""
    click.echo(f"{folder}: the quarantine of {name} is lifted{later}")
