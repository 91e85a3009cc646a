"""`new`: a peer folder from a lab's data, each choice explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--from", "data", required=True, metavar="DATA", type=click.Path(path_type=Path, exists=True),
    help="This lab's data. It stays where it is; its listing, some headers and a few masks are read.",
)  # fmt: skip
@click.option("--name", default="", help="This lab's name, shown to people in the others (default: FOLDER's).")
@click.option("--listen", default="", metavar="HOST:PORT", help="Default: 0.0.0.0:47100, or the next one not taken.")
@click.option(
    "--federation", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Join a federation that exists: its federation.toml. The data is checked against it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one object instead of a table.")
def new(folder: Path, data: Path, name: str, listen: str, federation: Path | None, as_json: bool) -> None:
    """Make a peer folder from DATA: federation.toml and peer.toml, with the reason of each value.

    DATA may be a Medical Segmentation Decathlon folder (dataset.json), a folder with images/ and labels/, a CSV or
    TSV manifest (image,label[,subject][,split]), a folder of images per class, a MedMNIST .npz file, or a folder
    with a DICOM series per case. Nothing is overwritten.

    \b
    The first lab:    braintorrent new lab-a --from /scans/hippocampus
    Every other lab:  braintorrent new lab-b --from /data/hippocampus --federation federation.toml
    """
    import json

    from braintorrent.node.tables import console as wide_console
    from braintorrent.workbench import proposing

    console = wide_console(stderr=as_json)
    with reading(console, quiet=as_json) as progress:
        proposal = proposing.new(folder, data, name, listen, federation, progress)
    if as_json:
        click.echo(json.dumps(proposal.plain()))
        return
    if proposal.choices:
        console.print(choices_table(proposal.choices))
    else:
        console.print(f"{proposal.federation}: the federation's; this data fits it", highlight=False)
    console.print(f"{folder / 'peer.toml'}: {proposal.name}, listens on {proposal.listen}", highlight=False)
    console.print("\nnext:", style="bold")
    for step in proposal.next_steps:
        console.print(f"  {step}", highlight=False, soft_wrap=True)


def choices_table(choices: Any) -> Any:
    """Key, value and reason of each value of a federation.toml."""
    from rich.table import Table
    from rich.text import Text

    from braintorrent.workbench.proposing_toml import literal

    table = Table("key", "value", "why", box=None, header_style="bold")
    for choice in choices:
        table.add_row(choice.key, Text(literal(choice.value)), Text(choice.why, "dim"))
    return table


def reading(console: Any, *, quiet: bool) -> Any:
    """A progress bar for what reads many files."""
    from braintorrent.experiments.live import progress_bar

    return progress_bar(console, "reading", quiet=quiet)
