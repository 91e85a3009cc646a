"""Links in a data folder: none is followed round and round, and none brings a word of another file into the open."""

from __future__ import annotations

import time

import nibabel
import numpy as np
import pytest

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import open_dataset
from braintorrent.tasks.layouts.reading import decode


@pytest.fixture
def folder(tmp_path):
    """Images and labels by name; the first case is sound."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / kind / "sound.nii.gz")
    (tmp_path / "secret").write_text("the administrator's password\n" * 1000)
    return tmp_path


def test_loops_end(folder):
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "deep").symlink_to(folder)
    assert [entry.image.name for entry in open_dataset(folder).entries] == ["sound.nii.gz"]


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "secret", "nowhere", "images"])
def test_what_is_no_scan_is_refused_quickly_and_not_quoted(folder, target):
    for kind in ("images", "labels"):
        (folder / kind / "odd.nii.gz").symlink_to(target if target.startswith("/") else folder / target)
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        [decode(entry.image, 3) for entry in open_dataset(folder).entries]
    assert time.monotonic() - began < 20
    assert "password" not in str(caught.value)
