"""`export`: a lab's model as a MONAI bundle."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "out", required=True, type=click.Path(path_type=Path), help="The bundle's folder, made anew.")
@click.option("--model", help="merged, own, best, latest, or a safetensors file (default: the first there is of "
                              "merged, best, latest).")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an earlier export there; all else in it stays.")
@click.option("--anyway", is_flag=True, help="Also a model that contains a lab revoked here.")
@click.option("--json", "as_json", is_flag=True, help="Print the model card as one JSON object.")
def export(folder: Path, out: Path, model: str | None, force: bool, anyway: bool, as_json: bool) -> None:
    """Write the model of the lab in FOLDER as a MONAI bundle, with a model card.

    The bundle holds the weights (safetensors), what is done to a scan before and after the network, and a card that
    says which labs are in it and how well the model did here; of labs revoked since, too, and none that contains one
    is exported without --anyway. It gives the segmentations that
    `braintorrent predict` gives, without BrainTorrent:

    \b
        python -m monai.bundle run --config_file bundle/configs/inference.json \\
            --bundle_root bundle --dataset_dir SCANS --output_dir OUT
        (needs: pip install 'braintorrent[bundle]', or monai nibabel safetensors fire pytorch-ignite)

    Weights tell something about the scans they were trained on: give a bundle only to whom you would give the model.
    """
    import json

    from braintorrent.workbench.exporting import export as write

    card = write(folder, out, model, force=force, anyway=anyway)
    if as_json:
        click.echo(json.dumps(card))
        return
    kept = card["model"]
    click.echo(f"{out}: {kept['name']} {kept['version']} with {len(card['parents'])} models merged into it")
    click.echo(f"card: {out / 'docs' / 'README.md'}")
