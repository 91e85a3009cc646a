"""A MedMNIST .npz (Yang et al., Scientific Data 2023), or a folder that holds exactly one.

{train,val,test}_images [N, H, W], [N, H, W, 3] or [N, H, W, D], and _labels [N, 1], or [N, K] with 0 and 1 where
classes do not exclude each other. Beyond the official arrays: {train,val,test}_subjects [N], where one subject has
several images, and `classes` [K], their names. Parts are as given.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, Entry

NAMES = {"training": "train", "validation": "val", "test": "test"}
COLOURS = 3


def recognises(path: Path) -> bool:
    """An .npz file, or a folder with one."""
    return path.suffix == ".npz" or bool(path.is_dir() and list(path.glob("*.npz")))


def read(path: Path) -> Dataset:
    """Images as they lie in the arrays; labels are indices, named where the file has `classes`."""
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    if len(files) > 1:
        raise DataError(f"{path}: {len(files)} .npz files; let data = name one")
    file = files[0]
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not readable as .npz without pickled objects ({type(error).__name__})") from None
    if "train_images" not in arrays:
        raise DataError(
            f"{file}: no train_images in it; a MedMNIST file has train_images, train_labels, val_images, ..."
        )
    entries = [entry for part, name in NAMES.items() if f"{name}_images" in arrays
               for entry in _entries(arrays, part, name, file)]  # fmt: skip
    return Dataset(file.parent, "medmnist", tuple(entries), tuple(map(str, arrays.get("classes", ()))))


def _entries(arrays: dict[str, Any], part: str, name: str, file: Path) -> list[Entry]:
    images, labels = arrays[f"{name}_images"], arrays.get(f"{name}_labels")
    if images.ndim not in (3, 4) or images.dtype.kind not in "uif":
        raise DataError(f"{file}: {name}_images is {images.dtype} {list(images.shape)}; needs numbers [N, H, W(, C)]")
    if labels is None or len(labels) != len(images) or labels.ndim not in (1, 2) or labels.dtype.kind not in "uib":
        raise DataError(f"{file}: {name}_labels needs {len(images)} rows of whole numbers, as {name}_images has")
    labels = labels.reshape(len(labels), -1).astype(np.int64)
    several = labels.shape[1] > 1
    classes, highest = arrays.get("classes"), labels.shape[1] - 1 if several else int(labels.max(initial=0))
    if labels.min(initial=0) < 0 or (classes is not None and highest >= classes.size):
        names = "" if classes is None else f", classes names {classes.size}"
        raise DataError(
            f"{file}: {name}_labels go from {labels.min(initial=0)} to {highest}{names}; name each from 0 up"
        )
    if several and not np.isin(labels, (0, 1)).all():
        raise DataError(f"{file}: {name}_labels has {labels.shape[1]} columns; they hold 0 and 1 only")
    subjects = arrays.get(f"{name}_subjects", [f"{name} {number}" for number in range(len(images))])
    if len(subjects) != len(images):
        raise DataError(f"{file}: {name}_subjects has {len(subjects)} rows, {name}_images {len(images)}")
    return [
        Entry(
            f"{file}: {name} image {number}", image,
            tuple(np.flatnonzero(label).tolist() if several else label.tolist()), str(subject), part,
        )
        for number, (image, label, subject) in enumerate(zip(images, labels, subjects, strict=True))
    ]  # fmt: skip
