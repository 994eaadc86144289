"""NRRD and MetaImage, read and written by SimpleITK, which is large and imported only when needed."""

from __future__ import annotations

import math
import os
import re
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
WRITTEN = (".nrrd", ".mha")  # the other two lie in two files, which cannot appear at once
_HEADER = 1 << 20  # bytes in which a header must end
_ENDS = {"NrrdImageIO": re.compile(rb"\n\r?\n|\r\r"), "MetaImageIO": re.compile(rb"(?m)^ElementDataFile *=")}
# The names of files of voxels. ITK's parsers forgive much, spaces and line ends in odd places: this forgives more.
_NAMED = re.compile(rb"(?im)(?:(?:^|\r)data\s*file\s*:|ElementDataFile\s*[:=])\s*([^\r\n]*)")


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
    bits = re.findall(r"\d+", sitk.GetPixelIDValueAsString(reader.GetPixelID()))[0]
    promised = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * int(bits) // 8
    _common.check_size(_voxel_file(path), promised, compressed=True)  # or text: nothing may be shorter
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

    _voxel_file(path)  # refuses a header before ITK follows it
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_format(path))
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


def _format(path: Path) -> str:
    """ITK's name of the format, which its own search would look for in the contents."""
    return "NrrdImageIO" if _common.has_suffix(path, (".nrrd", ".nhdr")) else "MetaImageIO"


def parts(path: Path) -> list[Path]:
    """The header, and the file of voxels that it names."""
    return sorted({path, _voxel_file(path)})


def _voxel_file(path: Path) -> Path:
    """The file that holds the voxels: the header's own, or the one that it names beside itself.

    Raises:
        DataError: it names several, none that is there, or one in another folder: a header may come from a stranger, and
            would have any file of this machine read.
    """
    with path.open("rb") as stream:
        header = stream.read(_HEADER)
    if len(header) == _HEADER and not _ENDS[_format(path)].search(header):
        raise DataError(f"'{path}' has a header of more than {_HEADER:,} bytes. Save it anew as .nrrd or .mha.")
    names = [name for found in _NAMED.findall(header) if (name := os.fsdecode(found).strip()).lower() != "local"]
    if not names:
        return path
    if len(names) > 1 or "%" in names[0] or names[0].split()[:1] == ["LIST"]:
        raise DataError(f"'{path}' has its voxels in several files; expected one. Save it anew as .nrrd or .mha.")
    folder = os.path.abspath(path.parent)
    voxels = Path(os.path.abspath(os.path.join(folder, names[0])))
    if not voxels.is_relative_to(folder):
        raise DataError(
            f"'{path}' names a file of voxels outside its own folder, which is not read. Put the file beside the header, "
            "and its bare name into it."
        )
    if not voxels.is_file():
        raise DataError(f"'{path}' is a header only: its voxels, '{names[0]}', are missing. Put the file beside it.")
    return voxels


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
        DataError: the file cannot be written.
    """
    import SimpleITK as sitk

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
