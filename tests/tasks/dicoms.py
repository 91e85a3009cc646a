"""A volume as a DICOM series, one file a slice, as scanners write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


def save_series(volume: np.ndarray, folder: Path, patient: str, series: str = "") -> None:
    """volume: [x, y, z] in RAS, 1 mm, its first voxel at the origin: x and y run against DICOM's own axes."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    for z in range(volume.shape[2]):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = MRImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = generate_uid()
        slice_.PatientID, slice_.SeriesInstanceUID, slice_.InstanceNumber = patient, series, z + 1
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, z], [-1, 0, 0, 0, -1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [1, 1], 1
        slice_.Columns, slice_.Rows = volume.shape[:2]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PixelData = volume[:, :, z].T.astype(np.uint16).tobytes()
        slice_.save_as(folder / f"slice{volume.shape[2] - z:03}.dcm", enforce_file_format=True)
