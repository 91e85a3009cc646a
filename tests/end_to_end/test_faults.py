"""This lab's own start-up faults: one clear line and exit code 2. A full disk while running: wait, then go on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest
import tomli_w

from braintorrent.cli import main
from braintorrent.node.lab import ensure_identity
from braintorrent.storage import StatePaths

BRAIN = {
    "kind": "segmentation", "labels": ["background", "organ"], "channels": 1, "dims": 3, "network": "UNet",
    "network_args": {"channels": [4, 8], "strides": [2]}, "patch": [8, 8, 8], "batch": 1, "steps": 1,
}  # fmt: skip


@pytest.fixture
def scans(tmp_path):
    """A lab folder with three tiny labelled scans."""
    folder = tmp_path / "scans"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    cases = []
    for number in range(3):
        label = np.zeros((10, 10, 10), np.uint8)
        label[3:7, 3:7, 3:7] = 1
        for kind, array in (("images", label * 100.0), ("labels", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / kind / f"{number}.nii.gz")
        cases.append({"image": f"./images/{number}.nii.gz", "label": f"./labels/{number}.nii.gz"})
    listed = {"training": cases[:1], "validation": cases[1:2], "test": cases[2:]}
    described = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "organ"}, **listed}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def lab(federate, task, **peer):
    labs = federate("lab-a", acquainted=False, **peer)
    (labs.root / "federation.toml").write_text(tomli_w.dumps({"format": 1, "id": "testing-0001", "task": task}))
    return labs.folders["lab-a"]


@pytest.fixture
def refused(monkeypatch, capsys):
    """The one line that `braintorrent run FOLDER` ends with, in this process: monai is slow to import again."""

    def run(folder) -> str:
        monkeypatch.setattr(sys, "argv", ["braintorrent", "run", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        line = capsys.readouterr().err
        assert ended.value.code == 2, line
        assert line.startswith("braintorrent: ")
        assert line.count("\n") == 1, line
        return line

    return run


def save(path, array, moved=0.0):
    affine = np.eye(4)
    affine[0, 3] = moved
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda scans: shutil.rmtree(scans), "scans: no such file or folder; data = names"),
        (lambda scans: (scans / "images/0.nii.gz").write_bytes(b"no scan"), "training case 0: the image"),
        (lambda scans: save(scans / "labels/0.nii.gz", np.zeros((9, 10, 10), np.uint8)), "shape"),
        (lambda scans: save(scans / "labels/0.nii.gz", np.full((10, 10, 10), 7, np.uint8)), "7"),
        (
            lambda scans: save(scans / "labels/0.nii.gz", np.zeros((10, 10, 10, 2), np.uint8)),
            "the label has 2 channels",
        ),
        (lambda scans: save(scans / "labels/0.nii.gz", np.zeros((10, 10, 10), np.uint8), 3.0), "3 voxels (3 mm) from"),
    ],
    ids=["missing", "unreadable", "misshapen", "unknown label", "channels", "misplaced"],
)
def test_bad_data_is_one_line(federate, refused, scans, spoil, says):
    folder = lab(federate, BRAIN, data=str(scans))
    spoil(scans)
    line = refused(folder)
    assert says in line
    assert f"braintorrent check {folder}" in line, "which names the file"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"network": "UNett"}, "UNett"),
        ({"network_args": {"chanels": [4, 8], "strides": [2]}}, "chanels"),
        ({"stepps": 3}, "stepps"),
        ({"kind": "segmentatoin"}, "segmentatoin"),
    ],
    ids=["network", "argument", "key", "task"],
)
def test_bad_federation_is_one_line(federate, refused, scans, change, says):
    assert says in refused(lab(federate, {**BRAIN, **change}, data=str(scans)))


def test_unknown_key_in_peer_toml_names_file_key_and_what_is_allowed(federate, refused):
    folder = lab(federate, {"kind": "standin"}, listenn="127.0.0.1:0")
    line = refused(folder)
    assert "peer.toml" in line
    assert "listenn" in line
    assert "listen," in line


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"gate": "validation"}, "; it stands under [gates]"),
        ({"stop": {"rollback": True}}, "; it stands above all sections"),
        ({"listenn": "127.0.0.1:0"}, "; did you mean listen?"),
    ],
    ids=["section", "top", "word"],
)
def test_a_key_in_the_wrong_place_is_told_the_right_one(federate, refused, wrong, says):
    assert refused(lab(federate, {"kind": "standin"}, **wrong)).endswith(f"{says}\n")


def test_all_wrong_keys_are_named_in_the_one_line(federate, refused):
    line = refused(lab(federate, {"kind": "standin"}, disk_gib="much", stop={"versions": "two"}, listenn="127.0.0.1:0"))
    assert "peer.toml: disk_gib: " in line
    assert line.endswith("(also wrong: stop.versions, listenn)\n")


def test_port_in_use_is_one_line(federate, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder = lab(federate, {"kind": "standin"}, listen=f"127.0.0.1:{port}")
        assert str(port) in refused(folder)


def test_folder_in_use_is_one_line(federate, refused):
    labs = federate("lab-a")
    labs.start()
    labs.until(lambda: labs.status("lab-a"))
    line = refused(labs.folders["lab-a"])
    assert f"process {labs.process('lab-a').pid}" in line


def test_key_readable_by_others_is_one_line(federate, refused):
    folder = lab(federate, {"kind": "standin"})
    ensure_identity(folder)
    StatePaths(folder).key.chmod(0o644)
    assert "chmod 600" in refused(folder)


def _mounted(path, size) -> bool:
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _waits_for_room(labs, name):
    """Whether a version waits to be stored: a fetch that found the disk full has made room for the version before."""
    before = labs.versions(name)
    time.sleep(1.0)
    status = labs.status(name)
    return "disk" in status["notes"] and status["step"] == "publishing" and labs.versions(name) == before


def test_a_full_disk_stops_publishing_not_serving_and_all_resumes(federate):
    timing = {"ask_every": 0.3, "alone_after": 3.0, "linger": 30.0}
    labs = federate("lab-a", "lab-b", acquainted=True, task={"size": 100_000}, timing=timing)
    state = StatePaths(labs.folders["lab-a"]).path
    saved = {file.name: file.read_bytes() for file in state.iterdir() if file.is_file()}
    if not _mounted(state, "8m"):
        pytest.skip("needs root, to mount a disk small enough to fill")
    try:
        for name, content in saved.items():
            (state / name).write_bytes(content)
            (state / name).chmod(0o600)
        labs.start()
        labs.until(lambda: labs.has_merged("lab-b", "lab-a") and labs.has_merged("lab-a", "lab-b"))
        filler = state / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        labs.until(lambda: _waits_for_room(labs, "lab-a"))
        stuck, before = labs.versions("lab-a"), labs.versions("lab-b")
        labs.until(lambda: labs.versions("lab-b") >= before + 3)
        answers = [p for p in labs.status("lab-b")["peers"] if p["present"] and not p["problem"]]
        assert answers, "lab-a no longer answers"
        assert labs.versions("lab-a") == stuck
        filler.unlink()
        labs.until(lambda: labs.versions("lab-a") > stuck and "disk" not in labs.status("lab-a")["notes"])
    finally:
        for name in labs.folders:
            labs.kill(name)
        subprocess.run(["umount", "-l", str(state)], check=True)
