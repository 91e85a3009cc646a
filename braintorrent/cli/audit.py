"""`audit`: is what lies here what was signed, and do two labs tell the same story."""

from __future__ import annotations

import json
from pathlib import Path

import click

from braintorrent.cli._folder import folder_argument

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@folder_argument
@click.option("--json", "as_json", is_flag=True, help="Print an object instead of lines.")
@click.option("--notes", nargs=2, metavar="PEER FILE", help="Write this lab's entries that concern PEER to FILE.")
@click.option("--compare", type=FILE, metavar="FILE", help="Hold another lab's notes in FILE against this ledger.")
def audit(folder: Path, as_json: bool, notes: tuple[str, str] | None, compare: Path | None) -> None:
    """Check every hash and signature of the peer in FOLDER.

    \b
    seal           no byte of the ledger changed since its last writer closed it
    file           SQLite's own check
    announcements  signed by their authors; proofs of two contents for one version
    chain          each entry signed, and linked to the one before
    tables         versions, merges, refusals, quarantines: as the chain has them
    notices        introductions and revocations, signed by their authors
    blobs          each what its name says, and none missing
    roster         as its last entry says
    models         as told beside them
    start          the weights all labs began from, as at the first start
    files          federation.toml and split.json since the last start; a new federation.toml is told, and no break

    It does not cover peer.toml, the key file's own header, logs, the checkpoint, and the baseline that `evaluate
    --alone` keeps: a node that starts checks the first two and does without the rest.

    The first break ends it with exit code 1. A node may run meanwhile; then the seal is open, and not checked.

    Two labs compare notes with --notes lab-b FILE in one of them, and --compare FILE in lab-b: exit code 1 where
    they disagree about what the one published and the other merged.
    """
    if notes and compare:
        raise click.UsageError("give --notes or --compare, not both", click.get_current_context())
    if notes:
        from braintorrent.node.notes import write_notes

        click.echo(write_notes(folder, notes[0], Path(notes[1])))
    elif compare:
        from braintorrent.node.notes import compare_notes

        _show(folder, as_json, *compare_notes(folder, compare))
    else:
        _audit(folder, as_json)


def _audit(folder: Path, as_json: bool) -> None:
    from braintorrent.node.auditing import audit as checks

    checked, broken = [], ""
    for found in checks(folder):
        checked.append({"what": found.what, "said": found.said, "whole": found.whole})
        broken = "" if found.whole else f"{found.what}: {found.said}"
        if found.whole and not as_json:
            click.echo(f"{found.what}: {found.said}")
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "whole": not broken, "broken": broken, "checked": checked}))
    elif broken:
        click.echo(f"braintorrent: {folder}: broken: {broken}", err=True)
    if broken:
        raise SystemExit(1)


def _show(folder: Path, as_json: bool, told: str, disagreements: list[str]) -> None:
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "told": told, "disagreements": disagreements}))
    else:
        click.echo("\n".join([told, *disagreements]))
    if disagreements:
        raise SystemExit(1)
