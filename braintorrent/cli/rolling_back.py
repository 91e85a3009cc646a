"""`rollback`: go on from an older version."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--before", metavar="PEER", help="To the newest version without PEER (a name, or a peer id) in its lineage."
)
@click.option("--to", metavar="VERSION", help="To this version of this lab; 0: to the weights that all began from.")
@click.option("-C", "folder", metavar="FOLDER", type=click.Path(path_type=Path), default=Path("."),
              help="The peer folder (default: here).")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(before: str | None, to: str | None, folder: Path, yes: bool) -> None:
    """Make the next `run` in FOLDER go on from an older version of this lab's own.

    No node may run there. The next version is trained from the old weights before anything is merged, and says so in
    its record. Nothing published is taken back: other labs keep what they fetched until they roll back as well, and
    merging their models can bring PEER's influence in again (`braintorrent status` says when). The ledger keeps it all.

    Old weights are kept while there is room (disk_gib). Where some of a lineage is unknown, --before goes back further:
    PEER might be in that part. It says so, and --to takes that version all the same; to the start it never goes past
    such a version. Models of state/models that contain PEER, or are newer than where it goes, are removed.
    """
    if (before is None) == (to is None):
        raise click.UsageError("give one of: --before PEER, --to VERSION", click.get_current_context())
    from braintorrent.node.going_on import words
    from braintorrent.node.influence import comes_back
    from braintorrent.node.lab import check_folder
    from braintorrent.node.reverting import Reverting, peers_called
    from braintorrent.node.roster import Roster
    from braintorrent.records import Identity
    from braintorrent.storage import Ledger, StateFolder

    check_folder(folder)
    with StateFolder(folder) as state:
        identity = Identity.load(state.key)
        with Ledger(state.ledger, identity=identity) as ledger:
            found, notes = Reverting(state, identity, ledger), []
            if before is not None:
                peers = peers_called(Roster(state.roster), before)
                way = found.before(peers, before)
                notes = list(comes_back(folder, ledger, identity.id, peers, before))
            else:
                way = found.to(to or "")
            for note in (*way.notes, *notes):
                click.echo(note)
            newest = words(found.own[-1].version)
            if not yes and not click.confirm(f"go back from {newest} to {way.called}, and drop what was begun since?"):
                raise click.ClickException("nothing was changed")
            found.go(way)
    click.echo(f"{folder}: the next run goes on from {way.called}")
