"""One folder with a DICOM series per case; its mask lies beside it as NAME.nii.gz (or .nii, .nrrd, .mha).

Subjects are told apart by PatientID, so that two series of one person stay in one part; where all series have the
same one, as some de-identified exports do, each series is a subject of its own. Reading needs pydicom.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Dataset, Entry
from braintorrent.tasks.layouts._names import VOLUMES, subfolders, visible

MAGIC = b"DICM"  # after a preamble of 128 bytes
FEWEST = 3  # series of one PatientID that are no longer taken for one person's


def recognises(path: Path) -> bool:
    """A folder of folders with DICOM files in them."""
    return path.is_dir() and any(is_series(folder) for folder in subfolders(path))


def read(path: Path) -> Dataset:
    """Series by folder name. A series without a mask is listed without a label."""
    entries: list[Entry] = []
    for number, folder in enumerate(subfolders(path), 1):
        where = f"{path}: case {number} by name"
        if not is_series(folder):
            raise DataError(f"{where}: no DICOM file in the folder; move it away")
        masks = [mask for suffix in VOLUMES if (mask := path / f"{folder.name}{suffix}").is_file()]
        if len(masks) > 1:
            raise DataError(f"{where}: {len(masks)} masks beside it; keep one")
        subject = check_series(folder, where)
        entries.append(Entry(where, folder, masks[0] if masks else None, subject or folder.name))
    if len(entries) >= FEWEST and len({entry.subject for entry in entries}) == 1:
        entries = [replace(entry, subject=_folder(entry).name) for entry in entries]
    return Dataset(path, "dicom", tuple(entries))


def _folder(entry: Entry) -> Path:
    assert isinstance(entry.image, Path)
    return entry.image


def is_series(folder: Path) -> bool:
    """Whether there is a DICOM file in a folder."""
    return any(path.is_file() and _begins(path)[128:] == MAGIC for path in visible(folder))


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)


def check_series(folder: Path, where: str) -> str:
    """The PatientID (or "") of a folder that holds one series and nothing else; DataError otherwise."""
    if importlib.util.find_spec("pydicom") is None:
        raise DataError(f"{where}: a DICOM series needs pydicom to be read; pip install 'braintorrent[dicom]'")
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    series, patient = set(), ""
    for position, path in enumerate(visible(folder), 1):
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "PatientID"])
        except (InvalidDicomError, OSError):
            raise DataError(f"{where}: file {position} by name in its folder is no DICOM file; move it away") from None
        series.add(str(header.get("SeriesInstanceUID", "")))
        patient = str(header.get("PatientID") or "").strip()
    if len(series) != 1:
        raise DataError(f"{where}: {len(series)} series in one folder; keep one series a folder")
    return patient
