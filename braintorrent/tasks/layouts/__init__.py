"""How a lab's data may lie on its disk. One file = one layout; `open_dataset` finds out which it is.

    decathlon   dataset.json, as in the Medical Segmentation Decathlon
    folders     images/ and labels/, files matched by name
    manifest    a CSV or TSV file: image,label[,subject][,split]
    classes     one folder of images per class
    medmnist    an .npz file with train_images, train_labels, ...
    dicom       one folder with a DICOM series per case, masks beside them

A layout only lists; nothing is decoded here. Errors are DataErrors of one style: file, row, what is wrong, what to
do. They name rows and positions, never a scan's file name, which may identify a patient and would end in a log;
`braintorrent check` shows names, to the person in front of it only.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braintorrent.errors import DataError

LAYOUTS = ("decathlon", "manifest", "medmnist", "folders", "dicom", "classes")  # the first that recognises it reads it
PARTS = ("training", "validation", "test")


@dataclass(frozen=True, slots=True)
class Entry:
    """One case as listed.

    where: file and row for messages. image: a file, the folder of a DICOM series, or pixels [H, W] or [H, W, C].
    label: a mask file; the classes of a whole image, by name or index (several where classes do not exclude each
    other); None where there is none. subject: cases of one subject never lie in two parts. part: one of PARTS, or
    "" where the layout does not say.
    """

    where: str
    image: Path | np.ndarray
    label: Path | tuple[str | int, ...] | None
    subject: str
    part: str = ""

    @property
    def place(self) -> str:
        """The row or position in its listing, as "training case 3"."""
        return self.where.rpartition(": ")[2]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What lies in a lab's data folder. labels, modality: names by index, where the layout has them."""

    root: Path
    layout: str
    entries: tuple[Entry, ...]
    labels: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()


def open_dataset(path: Path) -> Dataset:
    """List the data at `path`, a folder or a manifest or .npz file; DataError says what is wrong with it.

    A layout's module offers `recognises(path) -> bool`, cheap and without a guess at content, and `read(path)`.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; data = names the folder (or file) that holds the scans")
    for name in LAYOUTS:
        layout = importlib.import_module(f"{__name__}.{name}")
        if layout.recognises(path):
            dataset: Dataset = layout.read(path)
            if not dataset.entries:
                raise DataError(f"{path}: no cases in it ({name} layout)")
            return dataset
    raise DataError(
        f"{path}: no known layout; accepted are dataset.json (Decathlon), images/ with labels/, one CSV or TSV file "
        "with the columns image,label, folders of images by class, a MedMNIST .npz, a folder of DICOM files per case"
    )
