"""NRRD (`.nrrd`, and `.nhdr` with its voxels in another file), as https://teem.sourceforge.net/nrrd/format.html says.

It has its own reader because headers come from strangers: the usual libraries end the process on some of them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError
from medseg.files import write_bytes
from medseg.io import _common, _described, _packed
from medseg.io._described import Described
from medseg.volume import Volume

SUFFIXES = (".nrrd", ".nhdr")
WRITTEN = (".nrrd",)  # the other lies in two files, which cannot appear at once
_TYPES = {  # NRRD's names, of which every one has many
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_PACKINGS: dict[str, _packed.Packing] = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("gz", "gzip"), "deflate"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
}
_UNIT_MM = {"m": 1e3, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "micrometer": 1e-3}
_TO_LPS = {  # what turns a named space into the one that a header without a name is in
    **dict.fromkeys(("left-posterior-superior", "lps"), (1, 1, 1)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1, 1)),
}
_OF_SPACE = {"domain", "space", "time", "???", "none", ""}  # kinds of axes along which a volume extends


def matches(path: Path) -> bool:
    """Whether the name is that of an NRRD file."""
    return _common.has_suffix(path, SUFFIXES)


def _header(path: Path) -> Described:
    found, end = _described.lines(path, "NRRD")
    fields = _fields(path, found)
    try:
        sizes = _described.checked_sizes(path, [int(n) for n in fields["sizes"].split()], int(fields["dimension"]))
        code = next(code for code, names in _TYPES.items() if fields["type"].lower() in names)
        dtype = np.dtype((">" if fields.get("endian", "").lower() == "big" else "<") + code)
        channels = _channels(path, fields, len(sizes))
        axes = [axis for axis in range(len(sizes)) if axis != channels]
        affine = _described.affine(*_axes(fields, axes))
        words = fields.get("spacings", "").split()
        sized = "spacedirections" in fields or (bool(words) and all(np.isfinite(float(words[axis])) for axis in axes))
        return Described(
            path, sizes, channels, affine, dtype, _voxels(path, fields, end), sized, _space(fields) in _TO_LPS
        )
    except (KeyError, ValueError, IndexError, StopIteration, OverflowError) as error:
        raise _described.not_one(path) from error


def _fields(path: Path, found: list[str]) -> dict[str, str]:
    """Fields by name, in small letters and without blanks, which some of them may have or not."""
    fields: dict[str, str] = {}
    for line in found[1:]:
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[name.lower().replace(" ", "")] = value.strip()
        if name.lower().replace(" ", "") == "datafile" and value.split()[:1] == ["LIST"]:
            break  # names of files follow
    return fields


def _channels(path: Path, fields: Mapping[str, str], axes: int) -> int | None:
    """The axis along which a volume does not extend: of components, or the last of four."""
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()] or [""] * axes
    vectors = _vectors(fields.get("spacedirections", ""))
    others = [n for n in range(axes) if (vectors and vectors[n] is None) or kinds[n] not in _OF_SPACE]
    if not others and axes > 3:
        others = [axes - 1]
    if len(others) > 1 or axes - len(others) > 3:
        raise DataError(
            f"'{path}' has {axes} axes, {len(others)} of them of no space; expected three and one of channels."
        )
    return others[0] if others else None


def _axes(fields: Mapping[str, str], axes: list[int]) -> tuple[list[Array], list[float]]:
    """The step of each axis of space, and the first voxel, in LPS mm."""
    vectors = _vectors(fields.get("spacedirections", ""))
    if not vectors:
        return _spaced(fields, axes)
    signs = _units_mm(fields) * np.array(_TO_LPS.get(_space(fields), (1, 1, 1)))
    steps = [np.array(vectors[axis][:3], float) for axis in axes]  # type: ignore[index]
    origin = (_vectors(fields.get("spaceorigin", "")) or [None])[0] or [0.0, 0.0, 0.0]
    return [step * signs[: len(step)] for step in steps], [a * b for a, b in zip(origin, signs, strict=False)]


def _space(fields: Mapping[str, str]) -> str:
    """What the space is called, without its time."""
    return fields.get("space", "").lower().removesuffix("-time").removesuffix("t")


def _units_mm(fields: Mapping[str, str]) -> Array:
    """How many mm the unit of each direction of space is; one where it is none of length, or not said."""
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    return np.array([_UNIT_MM.get(unit.strip().lower(), 1.0) for unit in [*units, "", "", ""][:3]])


def _spaced(fields: Mapping[str, str], axes: list[int]) -> tuple[list[Array], list[float]]:
    """The same where no direction is given: only how long voxels are, and where the first begins, or has its centre."""

    def numbers(name: str) -> list[float]:
        words = fields[name].split() if name in fields else ["nan"] * (axes[-1] + 1)
        return [float(words[axis]) for axis in axes]

    spacings = [spacing if np.isfinite(spacing) else 1.0 for spacing in numbers("spacings")]
    centres = fields.get("centers", fields.get("centerings", "")).split() or ["cell"] * (axes[-1] + 1)
    half = [0.0 if centres[axis] == "node" else spacing / 2 for axis, spacing in zip(axes, spacings, strict=True)]
    mins = [low + to if np.isfinite(low) else 0.0 for low, to in zip(numbers("axismins"), half, strict=True)]
    return [np.eye(3)[n] * spacing for n, spacing in enumerate(spacings)], mins


def _vectors(text: str) -> list[list[float] | None]:
    """`none (1,0,0)` -> nothing, and three numbers."""
    words = re.findall(r"\(([^)]*)\)|none", text)
    return [[float(number) for number in word.split(",")] if word else None for word in words]


def _voxels(path: Path, fields: Mapping[str, str], end: int) -> dict[str, Any]:
    """Where the numbers lie and how, for `_packed.voxels`."""
    file, offset = path, end
    if name := fields.get("datafile"):
        file, offset = _described.beside(path, name), 0
    packing = _PACKINGS[fields["encoding"].lower()]
    with file.open("rb") as stream:
        stream.seek(offset)
        for _ in range(min(int(fields.get("lineskip", 0)), 1 << 16)):
            stream.readline()
        offset = stream.tell()
    skip = int(fields.get("byteskip", 0))
    if skip == -1 and packing == "raw":
        return {"path": file, "packing": packing, "offset": -1}
    return {"path": file, "packing": packing, "offset": offset, "skip": skip}


read, read_geometry, parts = _described.readers(_header)


def write(volume: Volume, path: Path) -> None:
    """Write `.nrrd` atomically and compressed; channels become components.

    Raises:
        DataError: the file cannot be written.
    """
    array = _common.stored(volume)
    array = array if volume.channels > 1 else array[0]
    affine = _common.LPS_TO_RAS @ volume.geometry.affine
    steps = [_vector(column) for column in affine[:3, :3].T]
    component = ["none"] if volume.channels > 1 else []
    code = f"{array.dtype.kind}{array.dtype.itemsize}"
    fields = {
        "type": _TYPES[code][-1 if code[0] != "f" else 0].removesuffix("_t"),
        "dimension": array.ndim,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join([*component, *steps]),
        "kinds": " ".join([*(["vector"] if component else []), "domain domain domain"]),
        "endian": "little",
        "encoding": "gzip",
        "space origin": _vector(affine[:3, 3]),
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    engine = zlib.compressobj(wbits=31)
    voxels = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    write_bytes(path, b"NRRD0004\n" + text.encode() + b"\n" + engine.compress(voxels) + engine.flush())


def _vector(numbers: Array) -> str:
    return f"({','.join(repr(float(number)) for number in numbers)})"
