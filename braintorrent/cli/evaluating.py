"""`evaluate`: how well a lab's models do on its own cases."""

from __future__ import annotations

from pathlib import Path

import click

from braintorrent.cli._folder import folder_argument


@click.command()
@folder_argument
@click.option("--part", type=click.Choice(["test", "validation"]), help="Default: test if the lab has test cases.")
@click.option("--alone", is_flag=True, help="Also train a model that never meets another's, for as many versions.")
@click.option("--cases", "every_case", is_flag=True, help="Show every case, not only means.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write every figure to FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def evaluate(
    folder: Path, part: str | None, alone: bool, every_case: bool, csv_file: Path | None, as_json: bool
) -> None:
    """Measure the models of the lab in FOLDER on its own cases.

    Per model and label: Dice; HD95, the 95th percentile of the distances between the surfaces, in mm; difference in
    volume. For classification: accuracy, AUC, F1. Models: own (before the last merge of a run), merged, best, latest.
    --alone answers what the federation was good for: it takes as long as the training of the versions took, once.
    Works beside a running peer; nothing leaves this machine.
    """
    import json

    from braintorrent.experiments.live import progress_bar
    from braintorrent.node.tables import console as wide_console
    from braintorrent.workbench import evaluating, evaluation_tables

    console = wide_console(stderr=as_json)
    with progress_bar(console, "reading cases", quiet=as_json) as progress:
        report = evaluating.evaluate(folder, part, alone=alone, progress=progress)
    if csv_file is not None:
        evaluating.write_csv(report, csv_file)
    if as_json:
        click.echo(json.dumps(report))
        return
    if every_case:
        console.print(evaluation_tables.cases(report))
    console.print(evaluation_tables.summary(report))
    for line in evaluation_tables.warnings(report):
        click.echo(line)
