"""NRRD and MetaImage, read and written by SimpleITK, which is large and imported only when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError
from medseg.files import atomic
from medseg.io import _common
from medseg.volume import Geometry, Kind, Volume

Array = npt.NDArray[Any]

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_WRITTEN = (".nrrd", ".mha")  # the other two lie in two files, which cannot appear at once


def matches(path: Path) -> bool:
    """Whether the name is that of an NRRD or MetaImage file."""
    return _common.has_suffix(path, SUFFIXES)


def read(path: Path, kind: Kind) -> Volume:
    """Read a file in full; components or time become channels, a 2D image has K == 1.

    Raises:
        DataError: the file is damaged or holds something else.
        GeometryError: its grid cannot be used.
    """
    import SimpleITK as sitk

    reader = _reader(path)
    grid = _grid(path, reader)
    try:
        array = sitk.GetArrayFromImage(reader.Execute()).T
    except RuntimeError as error:
        raise DataError(f"'{path}' is cut short or damaged. Copy it again from its source.") from error
    # Now (component, I, J, K) or (I, J, K, T) or (I, J, K), and without K where the image is 2D.
    if reader.GetDimension() == 4:
        array = np.moveaxis(array, -1, 0)
    return _common.volume(path, array.reshape((-1, *grid.shape)), grid, kind, {"notes": _common.shear_note(grid)})


def read_geometry(path: Path) -> Geometry:
    """The grid, from the header alone."""
    return _grid(path, _reader(path))


def _reader(path: Path) -> Any:
    """SimpleITK's reader with the header read."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(
            f"'{path}' is no NRRD or MetaImage file, or its header is damaged. Copy it again from its source."
        ) from error
    if reader.GetDimension() not in (2, 3, 4) or (reader.GetDimension() == 4 and reader.GetNumberOfComponents() > 1):
        raise DataError(
            f"'{path}' has {reader.GetDimension()} axes and {reader.GetNumberOfComponents()} components a voxel; "
            "expected three axes and one of time or components."
        )
    return reader


def _grid(path: Path, reader: Any) -> Geometry:
    axes = min(reader.GetDimension(), 3)
    direction = np.reshape(reader.GetDirection(), (reader.GetDimension(), -1))[:axes, :axes]
    affine = np.eye(4)
    affine[:axes, :axes] = direction * reader.GetSpacing()[:axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    return _common.geometry(path, (*reader.GetSize()[:axes], 1), _common.LPS_TO_RAS @ affine)


def write(volume: Volume, path: Path) -> None:
    """Write `.nrrd` or `.mha` atomically and compressed; channels become components.

    Raises:
        DataError: another ending, or the file cannot be written.
    """
    import SimpleITK as sitk

    if not _common.has_suffix(path, _WRITTEN):
        raise DataError(f"'{path}': NRRD and MetaImage are written as one file. Use .nrrd or .mha.")
    array = _common.stored(volume)
    vector = volume.channels > 1
    image = sitk.GetImageFromArray(array.T if vector else array[0].T, isVector=vector)
    affine = _common.LPS_TO_RAS @ volume.geometry.affine
    image.SetSpacing(volume.geometry.spacing_mm)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / volume.geometry.spacing_mm).ravel().tolist())
    with atomic(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise DataError(f"cannot write '{path}': the disk is full, or it has no type for {array.dtype}.") from error
