"""What the header of a scan says: size, channels, voxel size. No pixel of an image is decoded; masks are, a few.

Axes of volumes are in RAS order, as tasks see them: left to right, back to front, bottom to top.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braintorrent.errors import DataError
from braintorrent.tasks.layouts import Entry
from braintorrent.tasks.layouts._names import PICTURES, visible
from braintorrent.tasks.layouts.medmnist import COLOURS
from braintorrent.tasks.layouts.reading import NIFTI, decode


@dataclass(frozen=True, slots=True)
class Header:
    """shape: voxels per axis, 2 axes for a flat image, 3 for a volume. spacing: mm per voxel, None where unknown."""

    shape: tuple[int, ...]
    channels: int = 1
    spacing: tuple[float, ...] | None = None


def header(entry: Entry) -> Header:
    """Of one image; DataError names the entry's row if it cannot be read."""
    try:
        return _header(entry.image)
    except ImportError as error:
        raise DataError(f"{entry.where}: reading this image needs {error.name}; pip install {error.name}") from None
    except Exception as error:  # each reader library fails in its own way
        raise DataError(
            f"{entry.where}: the image is not readable ({type(error).__name__}); accepted are NIfTI files, "
            "folders with one DICOM series, PNG, JPEG, BMP, TIFF, NRRD and MetaImage"
        ) from None


def mask(entry: Entry) -> tuple[np.ndarray, float]:
    """(whole numbers, any shape; mm³ of one voxel, or 1 where unknown); DataError names the entry's row."""
    assert isinstance(entry.label, Path)
    try:
        stored = decode(entry.label)
    except DataError as error:
        raise DataError(f"{entry.where}: label: {error}") from None
    whole = np.rint(stored.voxels).astype(np.int64)
    if len(whole) != 1 or not np.array_equal(whole, stored.voxels):
        raise DataError(f"{entry.where}: the mask needs one channel with whole numbers: 0, 1, 2, ...")
    return whole, float(np.prod(stored.spacing))


def _header(image: Path | np.ndarray) -> Header:
    if isinstance(image, np.ndarray):
        return _pixels(image.shape)
    if image.is_dir():
        return _dicom(image)
    if image.name.lower().endswith(NIFTI):
        return _nifti(image)
    return _flat(image) if image.name.lower().endswith(PICTURES) else _decoded(image)


def _pixels(shape: tuple[int, ...]) -> Header:
    """[H, W], [H, W, C] or [D, H, W] of an array; tasks have x first."""
    coloured = len(shape) == 3 and shape[2] <= COLOURS
    return Header(shape[1::-1], shape[2]) if coloured else Header(shape[::-1])


def _nifti(path: Path) -> Header:
    import nibabel

    scan: Any = nibabel.load(path)
    shape = scan.shape + (1,) * (3 - len(scan.shape))
    sizes = nibabel.affines.voxel_sizes(scan.affine)
    channels = int(np.prod(shape[3:])) if len(shape) > 3 else 1
    return _in_ras_order(scan.affine[:3, :3], shape[:3], sizes, channels)


def _dicom(folder: Path) -> Header:
    """Of a series with one file per slice, or one file with all."""
    import pydicom

    files = [path for path in visible(folder) if path.is_file()]
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    slices = int(first.get("NumberOfFrames", 0)) or len(files)
    rows, columns = (float(size) for size in first.get("PixelSpacing", (1, 1)))
    thick = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1)
    along_row, along_column = np.reshape([float(v) for v in first.get("ImageOrientationPatient", (1, 0, 0, 0, 1, 0))],
                                         (2, 3))  # fmt: skip
    axes = np.stack([along_row, along_column, np.cross(along_row, along_column)], axis=1)
    size = int(first.Columns), int(first.Rows), slices
    return _in_ras_order(axes, size, (columns, rows, thick), int(first.get("SamplesPerPixel", 1)))


def _flat(path: Path) -> Header:
    from PIL import Image

    with Image.open(path) as image:
        return Header(image.size, len(image.getbands()))


def _decoded(path: Path) -> Header:
    """Of a format without a reader of headers here."""
    scan = decode(path)
    if scan.affine is None or len(scan.shape) < 3:
        return Header(scan.shape, len(scan.voxels), scan.spacing or None)
    return _in_ras_order(scan.affine[:3, :3], scan.shape, scan.spacing, len(scan.voxels))


def _in_ras_order(axes: np.ndarray, shape: Any, sizes: Any, channels: int) -> Header:
    """axes: columns point along the stored axes, in patient space [3, 3]."""
    import nibabel

    affine = np.eye(4)
    affine[:3, :3] = axes
    order = np.argsort(nibabel.io_orientation(affine)[:, 0])
    return Header(tuple(int(shape[axis]) for axis in order), channels, tuple(float(sizes[axis]) for axis in order))
