"""Decode one image or mask as it is stored: no resampling, no change of values or orientation.

NIfTI is read with nibabel; a DICOM series and 2-D images with MONAI's readers; arrays are there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braintorrent.errors import DataError

NIFTI = (".nii", ".nii.gz")
MISPLACED = 0.5  # voxels between a label and its image; from here on it names the neighbour's tissue


@dataclass(frozen=True, slots=True)
class Scan:
    """voxels: [C, H, W] or [C, H, W, D] in the stored type. affine: [4, 4], voxel to world in mm (RAS), where known.

    spacing: mm along each spatial axis; empty where the file does not say.
    """

    voxels: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape."""
        return self.voxels.shape[1:]


def decode(source: Path | np.ndarray, dims: int = 2) -> Scan:
    """A file, the folder of a DICOM series, or pixels; a DataError tells no file name.

    dims: spatial axes of pixels; one more axis are the channels, in the end.
    """
    if isinstance(source, np.ndarray):
        return Scan(_channels_first(source, dims), None, ())
    if not source.exists():
        raise DataError("the file is missing")
    try:
        return _nifti(source) if source.name.lower().endswith(NIFTI) else _with_monai(source)
    except Exception as error:  # each reader library fails in its own way
        raise DataError(f"the file is not readable ({type(error).__name__})") from None


def _nifti(path: Path) -> Scan:
    import nibabel

    image = nibabel.load(path)
    affine = np.asarray(image.affine, float)
    voxels = np.asanyarray(image.dataobj)
    spacing = tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0)[: min(voxels.ndim, 3)])
    return Scan(_channels_first(voxels, 3), affine, spacing)


def _with_monai(path: Path) -> Scan:
    from monai.transforms import LoadImage

    image = LoadImage(image_only=True, ensure_channel_first=True)(path)
    voxels = image.numpy()
    flat = voxels.ndim == 3  # a photograph or an X-ray: its pixels have no place in the world
    affine = None if flat else np.asarray(image.affine, float)
    spacing = () if affine is None else tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    return Scan(voxels, affine, spacing)


def _channels_first(array: np.ndarray, spatial: int) -> np.ndarray:
    """[*spatial] or [*spatial, ..., C] with channels in front."""
    if array.ndim <= spatial:
        return array[None]
    return np.moveaxis(array.reshape(*array.shape[:spatial], -1), -1, 0)


def apart(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> tuple[float, float]:
    """Voxels of `one`, and millimetres, at most, between where two affines [4, 4] put the same corner of a volume."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array([*shape, 1, 1][:3]) - 1)
    moved = np.hstack([corners, np.ones((8, 1))]) @ (one - other).T[:, :3]
    voxels = np.linalg.solve(one[:3, :3], moved.T).T
    return float(np.linalg.norm(voxels, axis=1).max()), float(np.linalg.norm(moved, axis=1).max())


def misplaced(voxels: float, millimetres: float) -> str:
    """In words."""
    return f"the label lies up to {voxels:.2g} voxels ({millimetres:.3g} mm) from its image"
