"""`predict`: a lab's model applied to scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from braintorrent.workbench.predicting import Predictor


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "out", type=click.Path(path_type=Path), help="Segmentation: a .nii.gz for one scan, or a folder.")
@click.option("--model", help="merged, own, best, latest, or a safetensors file (default: the first there is of "
                              "merged, best, latest).")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def predict(
    folder: Path, scans: tuple[Path, ...], out: Path | None, model: str | None, force: bool, as_json: bool
) -> None:
    """Apply the model of the lab in FOLDER to SCANS (NIfTI, or any other file or DICOM folder that MONAI reads).

    A segmentation has the grid, shape and affine of its scan, and the label values of federation.toml as uint8.
    For classification, the probabilities of the classes are printed, and -o is not needed.
    Works beside a running peer; nothing leaves this machine.

    \b
        braintorrent predict lab-a scan.nii.gz -o seg.nii.gz
        braintorrent predict lab-a scans/*.nii.gz -o segmentations/
    """
    from braintorrent.workbench.predicting import Predictor, plan

    jobs = plan(scans, out, force=force) if out is not None else []  # said before anything heavy is loaded
    predictor = Predictor(folder, model)
    if predictor.revoked:
        from braintorrent.workbench.contents import warning

        click.echo(warning(predictor.lab, predictor.kept, predictor.revoked), err=True)
    if not predictor.segments:
        _probabilities(predictor, scans, as_json)
        return
    if out is None:
        raise click.UsageError("-o is missing: where the segmentation goes", click.get_current_context())
    _segment(predictor, jobs, as_json)


def _segment(predictor: Predictor, jobs: list[tuple[Path, Path]], as_json: bool) -> None:
    import json

    from braintorrent.experiments.live import progress_bar
    from braintorrent.node.tables import console as wide_console

    console = wide_console(stderr=as_json)
    with progress_bar(console, "predicting", quiet=as_json) as progress:
        predictor.segment(jobs, progress)
    if as_json:
        written = [{"scan": str(scan), "segmentation": str(target)} for scan, target in jobs]
        click.echo(json.dumps({"model": _model(predictor), "written": written}))
        return
    for _, target in jobs:
        click.echo(target)


def _probabilities(predictor: Predictor, scans: tuple[Path, ...], as_json: bool) -> None:
    import json

    from rich.table import Table

    from braintorrent.experiments.live import progress_bar
    from braintorrent.node.tables import console as wide_console

    console = wide_console(stderr=as_json)
    with progress_bar(console, "predicting", quiet=as_json) as progress:
        found = predictor.probabilities(scans, progress)
    if as_json:
        click.echo(json.dumps({"model": _model(predictor), "scans": found}))
        return
    table = Table("scan", *found[0]["probabilities"])
    for row in found:
        table.add_row(row["scan"], *(f"{value:.3f}" for value in row["probabilities"].values()))
    console.print(table)


def _model(predictor: Predictor) -> dict[str, Any]:
    kept = predictor.kept
    return {"name": kept.name, "version": kept.version, "content": kept.content, "revoked": predictor.revoked}
