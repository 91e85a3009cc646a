"""export: the bundle is a MONAI bundle, and gives voxel for voxel what predict gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from monai.bundle import verify_net_in_out

from braintorrent.cli import cli
from braintorrent.errors import ConfigError
from braintorrent.workbench.exporting import export
from braintorrent.workbench.predicting import Predictor


def quiet(what: str, done: int, of: int) -> None:
    pass


@pytest.mark.usefixtures("bundle_extra")
def test_monai_runs_the_bundle_and_every_voxel_is_equal(any_lab: Any, tmp_path: Path) -> None:
    bundle, scans, out = tmp_path / "bundle", tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    (scans / "unseen.nii.gz").write_bytes(any_lab.unseen.read_bytes())
    export(any_lab.folder, bundle)
    config, metadata = bundle / "configs" / "inference.json", bundle / "configs" / "metadata.json"
    verify_net_in_out("network_def", str(metadata), str(config), device="cpu")
    arguments = {"config_file": config, "bundle_root": bundle, "dataset_dir": scans, "output_dir": out}
    command = [sys.executable, "-m", "monai.bundle", "run"]
    run = subprocess.run(
        [*command, *(text for key, value in arguments.items() for text in (f"--{key}", str(value)))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    Predictor(any_lab.folder).segment([(any_lab.unseen, tmp_path / "seg.nii.gz")], quiet)
    theirs, ours = nibabel.load(out / "unseen_seg.nii.gz"), nibabel.load(tmp_path / "seg.nii.gz")
    assert theirs.get_data_dtype() == np.uint8
    assert np.allclose(theirs.affine, ours.affine, atol=1e-5)
    assert len(np.unique(ours.dataobj)) == 3
    assert np.array_equal(theirs.dataobj, ours.dataobj)


def test_weights_are_safetensors_only(lab: Any, tmp_path: Path) -> None:
    export(lab.folder, tmp_path / "bundle")
    files = {str(path.relative_to(tmp_path / "bundle")) for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    assert files == {
        "configs/inference.json", "configs/metadata.json", "models/model.safetensors", "docs/README.md",
        "docs/model_card.json",
    }  # fmt: skip
    assert "torch.load" not in (tmp_path / "bundle" / "configs" / "inference.json").read_text()


def test_metadata_says_what_goes_in_and_out(lab: Any, tmp_path: Path) -> None:
    export(lab.folder, tmp_path / "bundle")
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    for key in ("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
                "required_packages_version", "task", "description", "authors", "copyright"):  # fmt: skip
        assert metadata[key]
    image, pred = (
        metadata["network_data_format"][side][key] for side, key in (("inputs", "image"), ("outputs", "pred"))
    )
    assert (image["num_channels"], image["spatial_shape"]) == (1, [12, 12, 12])
    assert pred["channel_def"] == {"0": "background", "1": "ball", "2": "core"}


def test_what_is_there_stays_unless_it_is_a_bundle_and_forced(lab: Any, tmp_path: Path) -> None:
    bundle, precious = tmp_path / "bundle", tmp_path / "precious"
    export(lab.folder, bundle)
    with pytest.raises(ConfigError, match="is there already; --force"):
        export(lab.folder, bundle)
    scans = bundle / "data" / "scan.nii.gz"
    scans.parent.mkdir()
    scans.touch()
    export(lab.folder, bundle, "own", force=True)
    assert scans.exists(), "only what export made is replaced"
    assert json.loads((bundle / "docs" / "model_card.json").read_text())["model"]["name"] == "own"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="no bundle, so it is not replaced"):
        export(lab.folder, precious, force=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_folder_one_is_in_may_be_the_target(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export(lab.folder, Path("."))
    assert (tmp_path / "configs" / "metadata.json").is_file()
    assert Path.cwd() == tmp_path


def test_the_card_names_who_is_in_the_model(lab: Any, tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["export", str(lab.folder), "-o", str(tmp_path / "bundle"), "--json"])
    assert run.exit_code == 0, run.output
    card = json.loads(run.stdout)
    assert [(parent["name"], parent["weight"]) for parent in card["parents"]] == [
        ("lab_a", 0.4), ("evil](http://x) | <b>", 0.6),
    ]  # fmt: skip
    (peer,) = [peer for peer in card["peers"] if peer["id"] == lab.peer]
    assert peer == {"name": "lab_b", "id": lab.peer, "times": 2, "mean_weight": 0.75, "skipped": {}}
    assert [peer["skipped"] for peer in card["peers"] if peer["skipped"]] == [{"not-finite": 2}]
    assert (card["training_cases"], card["validation"]["dice_core"], card["merges"]) == (3, 0.75, 2)
    assert card["network"]["parameters"] > 0
    text = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    for said in ("tiny-federation", "lab\\_b", "0.750", "2 not-finite", "dice\\_core", "0.7500", "monai"):
        assert said in text
    assert "evil](" not in text
    assert "<b>" not in text


def test_without_a_json_the_ledger_says_who_is_in_it(lab: Any, tmp_path: Path) -> None:
    """And a JSON beside a model counts only for the model it is of: a crash may leave another's."""
    models = lab.folder / "state" / "models"
    said = (models / "merged.json").read_text()
    try:
        (models / "merged.json").write_text(json.dumps({**json.loads(said), "content": "0" * 64}))
        card = export(lab.folder, tmp_path / "bundle")
    finally:
        (models / "merged.json").write_text(said)
    assert card["validation"] == {}
    assert {(parent["name"], parent["weight"]) for parent in card["parents"]} == {("lab_a", 0.25), ("lab_b", 0.75)}
