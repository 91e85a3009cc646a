"""`roster`, `revoke` and `rotate`: whom this lab trusts, whom no more, and a new key for itself."""

from __future__ import annotations

import json
from pathlib import Path

import click

from braintorrent.cli._folder import folder_argument

in_folder = click.option(
    "-C", "folder", metavar="FOLDER", type=click.Path(path_type=Path), default=Path("."),
    help="The peer folder (default: here).",
)  # fmt: skip


@click.command()
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print an object instead of tables.")
def roster(folder: Path, as_json: bool) -> None:
    """Show whom this lab trusts, since when, by whose introduction, and when each was last seen.

    Below: labs revoked here, and what other labs advise that waits for a decision
    (braintorrent trust --accept NAME, or --decline NAME).
    """
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.members import members, shown
    from braintorrent.node.tables import console

    ensure_identity(folder)
    found = members(folder)
    if as_json:
        click.echo(json.dumps(found))
    else:
        console().print(shown(found))


@click.command()
@click.argument("name")
@click.option("--why", metavar="TEXT", required=True, help="The reason, one line; the other labs will read it.")
@click.option("--vouched", is_flag=True, help="So too the labs that are here on NAME's word, and on theirs.")
@in_folder
def revoke(name: str, why: str, vouched: bool, folder: Path) -> None:
    """Trust the lab called NAME no more, from now on, and let the others know.

    Its versions are refused, whoever relays them; its models are dropped here and no longer served, its
    connections close. Models that contain it already are marked in `lineage` and `status`: `rollback --before
    NAME` goes back to before it. The others decide for themselves (`revocations` in their peer.toml); until the
    word has spread, NAME can still fetch from those who have not heard it.

    NAME may also be a peer id, of a lab that is not on the roster. A running node notices within two seconds.
    """
    from braintorrent.config import federation_path, load_federation, load_peer
    from braintorrent.errors import ConfigError
    from braintorrent.node.influence import goes_on
    from braintorrent.node.lab import ensure_identity
    from braintorrent.node.roster import Roster
    from braintorrent.node.trusting import revoke as take_back
    from braintorrent.storage import StatePaths

    if name in (load_peer(folder).name, ensure_identity(folder).id):
        raise ConfigError(f"{folder}: {name}: that is this lab itself")
    identity, federation = ensure_identity(folder), load_federation(federation_path(folder)).id
    paths = StatePaths(folder)
    gone = take_back(paths, identity, federation, name, why, vouched=vouched)
    roster = Roster(paths.roster)
    for peer in sorted(gone):
        click.echo(f"{folder}: {roster.name(peer)} {peer[:7]} is revoked; the others are told")
    if left := sorted(map(roster.name, roster.vouched(gone))):
        click.echo(
            f"{folder}: still trusted, on the word of {name}: {', '.join(left)}; if you doubt that word: "
            f"braintorrent revoke {min(gone)} --vouched --why TEXT -C {folder}"
        )
    for line in goes_on(folder, identity.id, gone, name):
        click.echo(line)


@click.command()
@in_folder
def rotate(folder: Path) -> None:
    """Give this lab a new key, and so a new peer id. Stop its node first.

    The old key says who it goes on as, the new one agrees; labs that trust the old id follow by themselves once
    they hear of it, from this lab at its next `run` or from each other; where somebody revoked this lab, or it had
    another new key within a day, a person there is asked first. The old key stays as `state/key.old`, for
    the record. Open invites and backups of the old key are of no use any more: make new ones.

    A key that somebody else may have is no case for this, since whoever has it can do the same: tell the other
    labs to revoke it, and join anew.
    """
    from braintorrent.node.lab import check_folder
    from braintorrent.node.rotating import rotate as change_key

    check_folder(folder)
    old, new = change_key(folder)
    click.echo(f"{folder}: was {old[:7]}, is {new}; run it, and those who trust it follow")
