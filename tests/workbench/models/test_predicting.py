"""predict: the scan's own grid to the bit, whatever way it is stored; nothing of the lab's folder changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from braintorrent.cli import cli
from braintorrent.errors import ConfigError, DataError
from braintorrent.records import Identity
from braintorrent.storage import Ledger, StateFolder, StatePaths
from braintorrent.workbench.kept import every, find, open_folder
from braintorrent.workbench.predicting import Predictor, plan


def quiet(what: str, done: int, of: int) -> None:
    pass


def predicted(lab: Any, scan: Path, out: Path) -> nibabel.Nifti1Image:
    Predictor(lab.folder).segment([(scan, out)], quiet)
    return nibabel.load(out)


def contents(folder: Path) -> dict[str, str]:
    """Of each file, but where SQLite's readers and writers note that they are there."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith("-shm")]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_grid_is_the_scans_own(any_lab: Any, tmp_path: Path) -> None:
    scan, found = nibabel.load(any_lab.unseen), predicted(any_lab, any_lab.unseen, tmp_path / "seg.nii.gz")
    assert found.shape == scan.shape
    assert np.array_equal(found.affine, scan.affine)
    for field in ("pixdim", "qform_code", "sform_code", "xyzt_units"):
        assert np.array_equal(found.header[field], scan.header[field])
    assert found.get_data_dtype() == np.uint8
    assert np.isnan(found.header["scl_slope"]) or found.header["scl_slope"] == 1
    assert b"Doe" not in found.header["descrip"].tobytes()
    values, bright = np.asarray(found.dataobj), np.asarray(scan.dataobj) > 200
    assert set(np.unique(values)) == {0, 1, 2}
    assert (values[bright] > 0).mean() > 0.8  # it has learned something, in the right place
    assert (values == 0).mean() > 0.5


def test_a_scan_stored_the_other_way_round_is_segmented_alike(any_lab: Any, tmp_path: Path) -> None:
    """The same voxels in the same places of the body, stored mirrored and with other axes first.

    Up to rounding: at another voxel size the grid hangs on the first voxel in RAS, which is the same for both.
    """
    stored = nibabel.load(any_lab.unseen)
    turned = stored.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    assert turned.shape != stored.shape
    ours = predicted(any_lab, any_lab.unseen, tmp_path / "a.nii.gz")
    theirs = predicted(any_lab, tmp_path / "turned.nii.gz", tmp_path / "b.nii.gz")
    again = theirs.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.io_orientation(theirs.affine), nibabel.io_orientation(ours.affine)))  # fmt: skip
    assert np.allclose(again.affine, ours.affine, atol=1e-5)
    assert (np.asarray(again.dataobj) != np.asarray(ours.dataobj)).mean() < 1e-3


def test_it_works_beside_a_running_node_and_changes_nothing(lab: Any, tmp_path: Path) -> None:
    state = StatePaths(lab.folder)
    with StateFolder(lab.folder), Ledger(state.ledger, identity=Identity.load(state.key)) as ledger:
        assert ledger.newest()
        before = contents(lab.folder)
        predicted(lab, lab.unseen, tmp_path / "seg.nii.gz")
        assert contents(lab.folder) == before


def test_which_model(lab: Any) -> None:
    assert Predictor(lab.folder).kept.version == "1000.2"
    assert (Predictor(lab.folder).kept.name, Predictor(lab.folder, "own").kept.name) == ("merged", "own")
    path = StatePaths(lab.folder).models / "own.safetensors"
    assert Predictor(lab.folder, str(path)).kept.content == Predictor(lab.folder, "own").kept.content
    with pytest.raises(ConfigError, match="no model best is kept; there are: merged, own"):
        Predictor(lab.folder, "best")
    with pytest.raises(ConfigError, match="nothing: no such file, and no model is called so"):
        Predictor(lab.folder, "nothing")


def test_several_scans_into_a_folder_and_never_over_anything(lab: Any, tmp_path: Path) -> None:
    data, out = lab.folder / "data", tmp_path / "out"
    scans = [data / "test0.nii.gz", data / "test1.nii.gz"]
    run = CliRunner().invoke(cli, ["predict", str(lab.folder), *map(str, scans), "-o", str(out), "--json"])
    assert run.exit_code == 0, run.output
    written = [out / "test0_seg.nii.gz", out / "test1_seg.nii.gz"]
    assert [row["segmentation"] for row in json.loads(run.stdout)["written"]] == [str(path) for path in written]
    assert all(path.is_file() for path in written)
    assert len(list(out.iterdir())) == 2
    with pytest.raises(ConfigError, match="is there already; --force"):
        plan(scans, out, force=False)
    assert plan(scans, out, force=True) == list(zip(scans, written, strict=True))
    with pytest.raises(ConfigError, match="one name for 2 scans"):
        plan(scans, tmp_path / "seg.nii.gz", force=False)
    with pytest.raises(ConfigError, match="scans 1 and 2 would both become"):
        plan([scans[0], scans[0]], tmp_path, force=False)
    with pytest.raises(ConfigError, match="is the scan itself"):
        plan(scans[:1], scans[0], force=True)
    with pytest.raises(ConfigError, match="scan 1: no such file"):
        plan([tmp_path / "none.nii.gz"], out, force=False)
    with pytest.raises(ConfigError, match=r"is one DICOM series; .* has NIfTI files: name each of them"):
        plan([scans[0].parent], out, force=False)


def test_series_in_folders_named_by_uid_have_two_names(tmp_path: Path) -> None:
    series = [tmp_path / "1.2.3.4", tmp_path / "1.2.3.5"]
    for folder in series:
        folder.mkdir()
    assert [out.name for _, out in plan(series, tmp_path / "out", force=False)] == [
        "1.2.3.4_seg.nii.gz", "1.2.3.5_seg.nii.gz",
    ]  # fmt: skip


def test_models_of_an_ended_run_that_went_on_are_taken_only_by_name(lab: Any) -> None:
    models = StatePaths(lab.folder).models
    said, best = (models / "merged.json").read_text(), models / "best.safetensors"
    try:
        best.write_bytes((models / "own.safetensors").read_bytes())
        assert find(open_folder(lab.folder)).name == "merged"
        (models / "merged.json").write_text(json.dumps({**json.loads(said), "version": "1000.1"}))
        opened = open_folder(lab.folder)
        assert find(opened).name == "best"
        assert [kept.name for kept in every(opened)] == ["own", "best"]
        assert find(opened, "merged").version == "1000.1"
    finally:
        best.unlink(missing_ok=True)
        (models / "merged.json").write_text(said)


def test_a_scan_that_does_not_fit_is_named_by_its_place(lab: Any, tmp_path: Path) -> None:
    two_channels, broken = tmp_path / "Doe_John.nii.gz", tmp_path / "Doe_Jane.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8, 2), np.float32), np.eye(4)), two_channels)
    broken.write_bytes(lab.unseen.read_bytes()[:500])
    predictor = Predictor(lab.folder)
    for scan, said in ((two_channels, "scan 1: the image has 2 channels; task.channels says 1"),
                       (broken, "scan 1: not readable as an image")):  # fmt: skip
        with pytest.raises(DataError, match=said) as caught:
            predictor.segment([(scan, tmp_path / "seg.nii.gz")], quiet)
        assert "Doe" not in str(caught.value)
        assert not (tmp_path / "seg.nii.gz").exists()
