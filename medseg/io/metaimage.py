"""MetaImage (`.mha`, and `.mhd` with its voxels in another file), as https://itk.org/Wiki/MetaIO/Documentation says.

It has its own reader because headers come from strangers: the usual libraries end the process on some of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import DataError
from medseg.files import write_bytes
from medseg.io import _common, _described
from medseg.io._described import Described
from medseg.volume import Geometry, Kind, Volume

SUFFIXES = (".mha", ".mhd")
WRITTEN = (".mha",)  # the other lies in two files, which cannot appear at once
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # MetaIO's own four bytes
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SCALING = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}


def matches(path: Path) -> bool:
    """Whether the name is that of a MetaImage file."""
    return _common.has_suffix(path, SUFFIXES)


def read(path: Path, kind: Kind) -> Volume:
    """Read a file in full; components or time become channels, a 2D image has K == 1.

    Raises:
        DataError: the file is damaged or holds something else.
        GeometryError: its grid cannot be used.
    """
    return _header(path).volume(kind)


def read_geometry(path: Path) -> Geometry:
    """The grid, from the header alone."""
    return _header(path).geometry()


def parts(path: Path) -> list[Path]:
    """The header, and the file of voxels that it names."""
    return sorted({path, _header(path).voxels["path"]})


def _header(path: Path) -> Described:
    found, end = _described.lines(path, "MetaImage")
    fields = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in found)}
    try:
        _check_plain(path, fields)
        axes, components = int(fields["NDims"]), int(fields.get("ElementNumberOfChannels", 1))
        sizes = _described.checked_sizes(path, [int(n) for n in fields["DimSize"].split()], axes)
        order = ">" if _true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
        dtype = np.dtype(order + _TYPES[fields["ElementType"]])
        matrix = _numbers(fields, "TransformMatrix", "Rotation", "Orientation") or np.eye(axes).ravel()
        told = _numbers(fields, "ElementSpacing", "ElementSize")
        spacing = told or [1.0] * axes
        origin = _numbers(fields, "Offset", "Position", "Origin")[:axes]
        # Its rows are the directions of the axes.
        steps = (np.reshape(matrix, (axes, axes)) * np.reshape(spacing[:axes], (axes, 1)))[:3, :3]
        affine = _described.affine(list(steps), origin[:3])
        sizes, channels = _with_components(path, sizes, components)
        return Described(path, sizes, channels, affine, dtype, _voxels(path, fields, end), bool(told))
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise _described.not_one(path) from error


def _check_plain(path: Path, fields: Mapping[str, str]) -> None:
    """Refuse numbers that stand for others: MetaIO names the function or the unit, and ITK, with its viewers, passes it over.

    Raises:
        DataError: voxels are to be scaled, or lengths are no millimetres.
    """
    if any(_numbers(fields, name) not in ([], [same]) for name, same in _SCALING.items()):
        raise DataError(
            f"'{path}' asks for its voxels to be scaled (ElementToIntensityFunction), which ITK and 3D Slicer never do: whether "
            "they are, nobody can tell. Save it anew with the values that are meant."
        )
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?"):
        raise DataError(
            f"'{path}' has DistanceUnits other than mm, which ITK and 3D Slicer take for mm. Save it anew in millimetres."
        )


def _with_components(path: Path, sizes: tuple[int, ...], components: int) -> tuple[tuple[int, ...], int | None]:
    """All sizes, and the axis of channels: of components, which run fastest, or time, the last of four."""
    if components == 1:
        return sizes, 3 if len(sizes) == 4 else None
    return _described.checked_sizes(path, (components, *sizes), len(sizes) + 1), 0


def _true(fields: Mapping[str, str], *names: str) -> bool:
    return any(fields.get(name, "").lower() in ("true", "1") for name in names)


def _numbers(fields: Mapping[str, str], *names: str) -> list[float]:
    return next(([float(word) for word in fields[name].split()] for name in names if name in fields), [])


def _voxels(path: Path, fields: Mapping[str, str], end: int) -> dict[str, Any]:
    """Where the numbers lie and how, for `_packed.voxels`."""
    name = fields["ElementDataFile"]
    file, offset = (path, end) if name.upper() == "LOCAL" else (_described.beside(path, name), 0)
    if fields.get("BinaryData", "True").lower() in ("false", "0"):
        return {"path": file, "packing": "text", "offset": offset}
    if _true(fields, "CompressedData"):
        return {"path": file, "packing": "deflate", "offset": offset}
    header = int(fields.get("HeaderSize", 0))
    return {"path": file, "packing": "raw", "offset": -1 if header == -1 else header or offset}


def write(volume: Volume, path: Path) -> None:
    """Write `.mha` atomically and compressed; channels become components.

    Raises:
        DataError: the file cannot be written.
    """
    array = _common.stored(volume)
    affine = _common.LPS_TO_RAS @ volume.geometry.affine
    spacing_mm = np.array(volume.geometry.spacing_mm)
    voxels = zlib.compress(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F"))
    code = f"{array.dtype.kind}{array.dtype.itemsize}"
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": len(voxels),
        "TransformMatrix": _words((affine[:3, :3] / spacing_mm).T.ravel()),
        "Offset": _words(affine[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _words(spacing_mm),
        "DimSize": " ".join(map(str, volume.geometry.shape)),
        "ElementNumberOfChannels": volume.channels,
        "ElementType": next(name for name, known in _TYPES.items() if known == code),
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{name} = {value}\n" for name, value in fields.items())
    write_bytes(path, text.encode() + voxels)


def _words(numbers: Any) -> str:
    return " ".join(repr(float(number)) for number in numbers)
