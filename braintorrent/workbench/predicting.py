"""Apply a lab's model to scans: a segmentation on each scan's own grid, or the probabilities of its classes.

May run beside the lab's node: no lock is taken, nothing in `state/` is written.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braintorrent.errors import ConfigError, DataError
from braintorrent.storage import write_atomically
from braintorrent.workbench.contents import contents
from braintorrent.workbench.kept import Kept, Opened, find, load, open_folder

SUFFIXES = (".nii.gz", ".nii")
Progress = Callable[[str, int, int], None]


class Predictor:
    """A kept model, ready for scans. kept: which, and where it comes from; revoked: labs in it revoked here."""

    def __init__(self, folder: Path, model: str | None = None) -> None:
        from braintorrent.learning.inference import open_network

        self.lab: Opened = open_folder(folder)
        wanted = find(self.lab, model)
        self._network = open_network(self.lab.federation, self.lab.peer, folder, self.lab.state.split)
        self.kept: Kept = load(wanted, self._network)
        self.revoked = contents(self.lab, self.kept).revoked

    @property
    def segments(self) -> bool:
        """Whether it gives segmentations; else probabilities, if anything."""
        return hasattr(self._network.task, "segment")

    def segment(self, jobs: Sequence[tuple[Path, Path]], progress: Progress) -> None:
        """Write each (scan, output). DataError names the scan by its place in the list."""
        for number, (scan, out) in enumerate(jobs, 1):
            labels, affine = self._network.task.segment(self._network.module, scan, f"scan {number}")
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, _nifti(labels, affine, scan, compressed=out.name.endswith(".gz")), mode=0o644)
            progress(f"scan {number}", number, len(jobs))

    def probabilities(self, scans: Sequence[Path], progress: Progress) -> list[dict[str, Any]]:
        """Per scan {"scan", "probabilities": {class: probability}}; ConfigError where the task cannot tell."""
        if not hasattr(self._network.task, "probabilities"):
            raise ConfigError(f"{self.lab.folder}: task.kind: {self.lab.federation.kind} does not predict single scans")
        found = []
        for number, scan in enumerate(scans, 1):
            try:
                of = self._network.task.probabilities(self._network.module, scan)
            except DataError as error:
                raise DataError(f"scan {number}: {error}") from None
            found.append({"scan": str(scan), "probabilities": of})
            progress(f"scan {number}", number, len(scans))
        return found


def plan(scans: Sequence[Path], out: Path, *, force: bool) -> list[tuple[Path, Path]]:
    """(scan, where its segmentation goes): `out` itself for one scan if it is a NIfTI name, else NAME_seg.nii.gz in it.

    ConfigError if a scan is missing, two would have one name, or something is there already and not `force`.
    """
    for number, scan in enumerate(scans, 1):
        if not scan.exists():
            raise ConfigError(f"scan {number}: no such file or folder: {scan}")
        if scan.is_dir() and any(file.name.endswith(SUFFIXES) for file in scan.iterdir()):
            raise ConfigError(f"scan {number}: a folder is one DICOM series; {scan} has NIfTI files: name each of them")
    named = out.name.endswith(SUFFIXES) and not out.is_dir()
    if named and len(scans) > 1:
        raise ConfigError(f"{out}: one name for {len(scans)} scans; -o takes a folder for several")
    jobs = [(scan, out if named else out / f"{_stem(scan)}_seg.nii.gz") for scan in scans]
    taken: dict[Path, int] = {}
    for number, (scan, target) in enumerate(jobs, 1):
        if target.resolve() == scan.resolve():
            raise ConfigError(f"{target}: is the scan itself; -o takes another name")
        if (first := taken.setdefault(target, number)) != number:
            raise ConfigError(f"scans {first} and {number} would both become {target}; predict them into two folders")
        if target.exists() and not force:
            raise ConfigError(f"{target}: is there already; --force overwrites it")
    return jobs


def _stem(scan: Path) -> str:
    name = scan.resolve().name
    if scan.is_dir():  # of a DICOM series, often by its UID: dots and all
        return name
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), scan.stem or name)


def _nifti(labels: np.ndarray, affine: np.ndarray, scan: Path, *, compressed: bool) -> bytes:
    """labels uint8 [H, W, D] as NIfTI; its geometry is that of the scan's own header, to the bit, where it has one."""
    import nibabel

    if scan.name.endswith(SUFFIXES):
        image = nibabel.load(scan)
        header = image.header.copy()
        header.extensions.clear()
        for text in ("descrip", "aux_file", "db_name"):  # people write names of patients into these
            header[text] = b""
        header["cal_min"] = header["cal_max"] = 0
        header.set_intent("none")
        made = type(image)(labels.reshape(image.shape[:3]), image.affine, header, dtype=np.uint8)
    else:
        made = nibabel.Nifti1Image(labels, affine, dtype=np.uint8)
    data: bytes = made.to_bytes()
    return gzip.compress(data, mtime=0) if compressed else data
