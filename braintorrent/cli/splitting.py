"""`split`: one data set over several labs on this machine, ready to launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--labs", type=click.IntRange(2, 64), default=4, show_default=True, help="How many.")
@click.option(
    "--by", type=click.Choice(["even", "size", "label"]), default="even", show_default=True,
    help="even: shuffled. size: lab number k gets k shares. label: labs differ in what they see.",
)  # fmt: skip
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder of peer folders to make.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split and start weights.")
@click.option("--versions", type=click.IntRange(1), help="Versions each lab trains (default: by the task).")
@click.option("--json", "as_json", is_flag=True, help="Print one object instead of tables.")
def split(data: Path, labs: int, by: Any, out: Path, seed: int, versions: int | None, as_json: bool) -> None:
    """Split DATA over several labs, for experiments: one peer folder each, and one federation.toml.

    DATA is in any layout that `braintorrent new` takes. A subject's cases stay together, parts that the data has
    are kept (a lab's training cases come from training, its validation cases from validation), otherwise a test
    and a validation part are dealt. Scans stay where they are; only the pixels of an .npz are copied.

    \b
    even   a shuffled deal
    size   of five labs, the first gets 1/15 of the subjects, the last 5/15
    label  masks: subjects in order of foreground volume, so that one lab has the small ones;
           classes: each class is shared out by a Dirichlet(0.5) draw, a few of each to every lab

    \b
    braintorrent split Task04_Hippocampus --labs 5 --by size -o labs/
    braintorrent launch labs/
    """
    import json

    from braintorrent.cli.new import choices_table, reading
    from braintorrent.experiments.labs import Plan, lay_out
    from braintorrent.node.tables import console as wide_console

    console = wide_console(stderr=as_json)
    plan = Plan(labs, by, seed, versions)
    with reading(console, quiet=as_json) as progress:
        laid = lay_out(data, out, plan, measure=True, progress=progress)
    if as_json:
        click.echo(json.dumps(laid.plain()))
        return
    console.print(choices_table(laid.choices))
    console.print(_shares(laid))
    for note in laid.notes:
        console.print(note, style="yellow", highlight=False)
    console.print(f"next: braintorrent launch {out}", highlight=False)


def _shares(laid: Any) -> Any:
    """Lab, cases by part, and what of each label."""
    from rich.table import Table

    first = 1 if laid.unit else 0  # how much background a scan has says little
    table = Table("lab", *laid.parts, *(f"{label}{laid.unit}" for label in laid.labels[first:]), header_style="bold")
    for share in laid.shares:
        whole = [not laid.unit or amount >= 100 for amount in share.amounts[first:]]
        amounts = (f"{a:.0f}" if plain else f"{a:.3g}" for a, plain in zip(share.amounts[first:], whole, strict=True))
        table.add_row(share.name, *(str(share.counts[part]) for part in laid.parts), *amounts)
    return table
