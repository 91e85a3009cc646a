"""`lineage`: what went into a model."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click


@click.command()
@click.argument("version", required=False)
@click.option("-C", "folder", metavar="FOLDER", type=click.Path(path_type=Path), default=Path("."),
              help="The peer folder (default: here).")  # fmt: skip
@click.option("--depth", type=click.IntRange(min=0), metavar="N",
              help="Merges to go back (default: 6 in the tree, all with --json and --dot).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--dot", "as_dot", is_flag=True, help="Print a graph: braintorrent lineage --dot | dot -Tsvg > it.svg")
@click.option("--missed", is_flag=True,
              help="Show instead which versions of the others no merge here took, and when.")  # fmt: skip
def lineage(version: str | None, folder: Path, depth: int | None, as_json: bool, as_dot: bool, missed: bool) -> None:
    """Show what is in a model of this lab: whose versions, at what weight, back to local training.

    VERSION is an own version (7), or latest, best, own, merged: a model of state/models. Default: the newest version.
    A running node is not disturbed.

    \b
    weight     its part in the one merge it went into
    share      the weights of all merges on the way, multiplied; over all ways, added up
    influence  the shares of a lab's versions, added up, as a part of all that is known

    Other labs' parts are what they signed, not what was seen (docs/lineage.md). Beyond a hole nothing is known.
    """
    if as_json and as_dot:
        raise click.UsageError("--json or --dot, not both", click.get_current_context())
    if missed and (as_dot or version is not None or depth is not None):
        raise click.UsageError("--missed is of all merges: only -C and --json go with it", click.get_current_context())
    from braintorrent.config import load_peer
    from braintorrent.errors import ConfigError
    from braintorrent.node.lab import check_folder
    from braintorrent.node.lineage import Ancestry
    from braintorrent.node.pedigree import DEPTH, chosen, dot, namer, picture, plain
    from braintorrent.node.roster import Roster
    from braintorrent.node.tables import console, plain_missed, what_was_missed
    from braintorrent.records import Identity
    from braintorrent.storage import Ledger, StatePaths, taken_from

    if version is not None and Path(version, "peer.toml").exists():
        raise ConfigError(f"{version} is a folder, no version: braintorrent lineage -C {version}")
    check_folder(folder)
    paths = StatePaths(folder)
    if not paths.ledger.exists():
        raise ConfigError(f"{folder}: no node ever ran here, so there is no model")
    me, roster = Identity.load(paths.key).id, Roster(paths.roster)
    name = namer(me, load_peer(folder).name, roster)
    with Ledger(paths.ledger, read_only=True) as ledger:
        if missed:
            own = {me, *(a.author for a in ledger.own())}
            arrived = {(a.author, a.version): unix for a, unix in ledger.arrivals()}
            taken = taken_from((merge for _, merge in ledger.merges()), arrived, own, functools.cache(roster.heir))
            if as_json:
                click.echo(json.dumps(plain_missed(taken, name)))
            else:
                console().print(what_was_missed(taken, name) if taken else "nobody was merged here yet")
            return
        found = Ancestry(ledger, paths.blobs).trace(*chosen(ledger, paths.models, me, version))
    if as_json:
        click.echo(json.dumps(plain(found, name, roster.revoked, depth)))
    elif as_dot:
        click.echo(dot(found, name, roster.revoked, depth))
    else:
        console().print(picture(found, name, roster.revoked, DEPTH if depth is None else depth))
