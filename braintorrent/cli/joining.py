"""`invite` and `join`: two labs that have never met trust each other by one code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from braintorrent.errors import RemoteError
    from braintorrent.node.inviting import Given
    from braintorrent.workbench.joining import Offer


@click.command()
@click.argument("name", required=False)
@click.option(
    "-C", "folder", metavar="FOLDER", type=click.Path(path_type=Path), default=Path("."),
    help="The peer folder (default: here).",
)  # fmt: skip
@click.option(
    "--expires", "hours", type=click.FloatRange(0, 24 * 365, min_open=True), default=72.0, metavar="HOURS",
    show_default=True, help="How long the code is good.",
)  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the codes given away.")
@click.option("--cancel", is_flag=True, help="Make the open code for NAME worthless.")
@click.option("--json", "as_json", is_flag=True, help="Print an object, or with --list a list of them.")
def invite(name: str | None, folder: Path, hours: float, listing: bool, cancel: bool, as_json: bool) -> None:
    """Print a code by which the lab that will be called NAME can join.

    The code holds this peer's id and addresses, the federation's id, and a secret that works once. Give it to that lab
    so that nobody else reads it: whoever uses it first is in. This peer has to run when the other lab joins.

    \b
    braintorrent invite lab-c                 here; then, in the other lab:
    braintorrent join CODE lab-c --data SCANS
    """
    import time

    from braintorrent.node import inviting
    from braintorrent.node.lab import check_folder
    from braintorrent.storage import StatePaths

    if listing + (name is not None) != 1 or (cancel and name is None):
        raise click.UsageError("give NAME, or --list", click.get_current_context())
    check_folder(folder)
    paths, now = StatePaths(folder), time.time()
    if listing:
        return _list(inviting.invites(paths), now, as_json)
    assert name is not None
    if cancel:
        good = inviting.cancel(paths, name, now)
        words = "is worthless now" if good else "had expired already"
        click.echo(json.dumps({"cancelled": name}) if as_json else f"{folder}: the code for {name} {words}")
        return
    code = inviting.invite(folder, name, hours, now)
    if as_json:
        click.echo(json.dumps({"name": name, "code": code, "expires": int(now + 3600 * hours)}))
    else:
        click.echo(code)
        click.echo(
            f"works once, for {hours:g} hours, while this peer runs; whoever has it can join as {name}", err=True
        )


def _list(given: list[Given], now: float, as_json: bool) -> None:
    rows = [{**one.model_dump(), "state": one.state(now)} for one in given]
    if as_json:
        click.echo(json.dumps(rows))
    for row in [] if as_json else rows:
        hours = (row["expires"] - now) / 3600
        click.echo(f"{row['name']}  {row['state']}{f', {hours:.1f} hours left' if row['state'] == 'open' else ''}")


@click.command()
@click.argument("code")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="DATA", type=click.Path(path_type=Path, exists=True),
    help="This lab's data. It stays where it is, and is checked against what the federation trains.",
)  # fmt: skip
@click.option("--name", default="", help="This lab's name, shown to people in the others (default: the code's).")
@click.option("--listen", default="", metavar="HOST:PORT", help="Default: 0.0.0.0:47100, or the next one not taken.")
@click.option("--only-inviter", is_flag=True, help="Trust the inviting lab only, not those that it vouches for.")
@click.option("--yes", is_flag=True, help="Ask nothing: join, and trust.")
@click.option("--run", "go_on", is_flag=True, help="Then run the peer, as `braintorrent run FOLDER` does.")
@click.option("--json", "as_json", is_flag=True, help="Print one object; needs --yes.")
def join(
    code: str, folder: Path, data: Path, name: str, listen: str, only_inviter: bool, yes: bool, go_on: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Join the federation that CODE is for: make FOLDER, after showing what will be trained, and with whom.

    CODE is what `braintorrent invite` printed in the other lab, which must be running and reachable. It is asked over
    a connection that only it can answer. What it offers may name installed methods, tasks and networks only, never
    code. Nothing is written before you agree; a join that breaks off can be repeated with the same command.

    With - as CODE it is read from standard input, one line: a code given as an argument stands in the list of
    processes, which other users of this machine may read.
    """
    from braintorrent.errors import RemoteError, StorageFull
    from braintorrent.node.tables import console as wide_console
    from braintorrent.records import decode_invite
    from braintorrent.workbench import joining

    if as_json and not yes:
        raise click.UsageError("--json asks no questions: give --yes too", click.get_current_context())
    invited = decode_invite(_read() if code == "-" else code)
    console = wide_console(stderr=as_json)
    try:
        offer = joining.look(invited, folder)
        console.print(_table(offer))
        with _reading(console, quiet=as_json or not offer.is_of_images) as progress:
            joining.fit(offer, data, progress)
        others = _ask(offer, yes=yes, only_inviter=only_inviter)
        joined = joining.settle(offer, folder, data, name, listen, others=others)
    except RemoteError as error:
        raise click.ClickException(_in_words(error)) from None
    except StorageFull as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(joined.plain()))
    else:
        click.echo(f"{folder}: {joined.name} is in {offer.federation.id}, and trusts {', '.join(joined.trusted)}")
    if go_on and not offer.start_file:
        from braintorrent.cli.running import run

        return click.get_current_context().invoke(run, folder=folder, in_folder=None, verbose=False)
    for step in [] if as_json else ["next:", *(f"  {step}" for step in joined.next_steps)]:
        click.echo(step)


def _read() -> str:
    if sys.stdin.isatty():
        click.echo("code: ", nl=False, err=True)
    return sys.stdin.readline()  # what follows may be the answers to the questions


def _ask(offer: Offer, *, yes: bool, only_inviter: bool) -> bool:
    """Whether to trust those that the inviter vouches for too; ClickException unless a person agrees to join."""
    if not yes and not click.confirm(f"Join, and trust {offer.welcome.name}?"):
        raise click.ClickException("nothing was written; the code is still good")
    if only_inviter or not offer.others:
        return False
    names = ", ".join(name for _, name, _ in offer.others)
    return yes or click.confirm(f"Also trust those that {offer.welcome.name} vouches for: {names}?", default=True)


def _table(offer: Offer) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for what, value in offer.rows():
        table.add_row(Text(what, "bold"), Text(value))
    return table


def _reading(console: Any, *, quiet: bool) -> Any:
    from braintorrent.cli.new import reading

    return reading(console, quiet=quiet)


def _in_words(error: RemoteError) -> str:
    """What the inviting lab did or failed to do, and what helps."""
    advice = {
        "unreachable": "is the inviting lab running, and its port open to this machine?",
        "identity": "ask the inviting lab for its present addresses, in a new code",
        "expired": "ask for a new one", "used": "ask for a new one", "unknown": "ask for a new one",
    }  # fmt: skip
    told = advice.get(error.reason)
    return f"{error.detail}{f'; {told}' if told else ''}"
