"""Small DICOM files with known contents."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

Change = Callable[[int], dict[str, Any]]


def slab(n: int) -> np.ndarray:
    """Pixels of slice n, four rows of three columns, unlike those of any other slice."""
    return (np.arange(12).reshape(4, 3) + 100 * n).astype(np.int16)


def image(position: tuple[float, float, float], pixels: np.ndarray, **changes: Any) -> FileDataset:
    """One slice of a CT; `changes` sets attributes, or removes those that are None."""
    data = bare(CTImageStorage, pixels)
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Modality = "CT"
    data.PixelSpacing, data.SliceThickness = [0.5, 0.75], 4
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], list(position)
    for name, value in changes.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    return data


def bare(sop_class: str, pixels: np.ndarray) -> FileDataset:
    """A file of one series with pixels `([frames,] rows, columns)` and a patient, and no place."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.PatientName = "1.2.3", "Doe^John"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    return data


def save(folder: Path, images: list[FileDataset]) -> Path:
    """Names run against the order of the slices, as on many scanners."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(images):
        data.save_as(folder / f"{len(images) - n:03d}.dcm")
    return folder


def series(folder: Path, change: Change = lambda n: {}, count: int = 5) -> Path:
    """Slices 2 mm apart."""
    return save(folder, [image((10, -20, 30 + 2 * n), slab(n), **change(n)) for n in range(count)])


def item(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    data = Dataset()
    for name, value in values.items():
        setattr(data, name, value)
    return [data]


def enhanced(frames: list[dict[str, Any]], pixels: np.ndarray, **shared: Any) -> FileDataset:
    """A multi-frame MR; `frames` and `shared` are functional groups by the keyword of their sequence."""
    data = bare(EnhancedMRImageStorage, pixels)
    data.Modality, data.InstanceNumber, data.NumberOfFrames = "MR", 1, len(frames)
    common = {"PlaneOrientationSequence": item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])}
    common["PixelMeasuresSequence"] = item(PixelSpacing=[0.5, 0.75], SliceThickness=4)
    data.SharedFunctionalGroupsSequence = item(**(common | shared))
    data.PerFrameFunctionalGroupsSequence = [item(**groups)[0] for groups in frames]
    return data


def mosaic(tiles: np.ndarray, normal: tuple[float, float, float], **changes: Any) -> FileDataset:
    """A Siemens mosaic of tiles `(slices, rows, columns)`, the first of which begins at the origin."""
    count, rows, columns = tiles.shape
    side = int(np.ceil(np.sqrt(count)))
    whole = np.zeros((side * rows, side * columns), tiles.dtype)
    for n, tile in enumerate(tiles):
        row, column = n // side * rows, n % side * columns
        whole[row : row + rows, column : column + columns] = tile
    corner = (-(side - 1) * columns / 2 * 0.75, -(side - 1) * rows / 2 * 0.5, 0)
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "Modality": "MR", "SpacingBetweenSlices": 3}
    data = image(corner, whole, **(kind | changes))
    block = data.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(
        0x10, "OB", csa({"NumberOfImagesInMosaic": [str(count)], "SliceNormalVector": list(map(str, normal))})
    )
    return data


def csa(fields: dict[str, list[str]]) -> bytes:
    """A header of version 2 as Siemens writes it, with empty items behind each value."""
    blob = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        items = [*values, ""]
        blob += name.encode().ljust(64, b"\0") + struct.pack("<I4sIII", len(values), b"DS\0\0", 6, len(items), 77)
        for value in items:
            text = value.encode() + b"\0" if value else b""
            blob += struct.pack("<4I", len(text), len(text), 77, len(text)) + text.ljust(
                (len(text) + 3) // 4 * 4, b"\0"
            )
    return blob


@pytest.fixture(scope="session")
def make() -> Any:
    """The makers of this file, by name."""
    from types import SimpleNamespace

    parts = (slab, image, bare, save, series, item, enhanced, mosaic, csa)
    return SimpleNamespace(**{part.__name__: part for part in parts})
