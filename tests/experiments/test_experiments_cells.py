"""What experiments keep, so that they go on where they were interrupted, and never with what was found elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from braintorrent.errors import ConfigError
from braintorrent.experiments.cells import data_digest, keep, kept


def test_what_is_kept_is_read_and_what_is_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cell.json"
    assert kept(file, {"data": "x"}) is None
    told = keep(file, {"data": "x", "pair": (1, 2)})
    assert told == kept(file, {"data": "x"}) == {"data": "x", "pair": [1, 2]}
    with pytest.raises(ConfigError, match=r"cell\.json: of data x, not y; move it away"):
        kept(file, {"data": "y"})
    with pytest.raises(ConfigError, match=r"of device unknown, not cpu"):
        kept(file, {"data": "x", "device": "cpu"})


def test_data_is_the_same_wherever_it_lies_and_other_when_a_label_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        for name in ("image", "label"):
            (folder / name).mkdir(parents=True)
            nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), folder / name / "0.nii")
        listed = [{"image": "image/0.nii", "label": "label/0.nii"}]
        (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "no", "1": "yes"}, "training": listed}))
    assert data_digest(first) == data_digest(second)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), second / "label" / "0.nii")
    assert data_digest(first) != data_digest(second)
