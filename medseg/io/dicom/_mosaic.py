"""Mosaics: all slices of a volume as tiles of one frame. Where they lie stands in private headers alone.

With Siemens the frame's position is that of a slice as large as the whole mosaic about the first slice's centre. The number of
tiles and the direction from one to the next are in the image header ("CSA", group 0029), which people who remove names often
remove too; since Numaris X (XA) they have tags of their own as well, in group 0021. United Imaging counts the tiles in
(0065,1050), and says where each begins in (0065,1051).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medseg.io.dicom import _tags
from medseg.io.dicom._planes import File, Header, Numbers, Plane

_MOST_TILES = 4096
_COUNT, _NORMAL = "NumberOfImagesInMosaic", "SliceNormalVector"
_NUMARIS_X = (0x0021, "SIEMENS MR SDI 02")
_ITS_OWN, _ITS_COUNT, _ITS_NORMAL = 0xFE, 0x01, 0x02  # a sequence that may hold the others, and these
_MOSAIC = "is a mosaic (all slices side by side)"
_UNKNOWN = f"{_MOSAIC} whose private header, which says how many slices it holds and which way they go, was removed or cannot be read"
_UNFIT = f"{_MOSAIC} whose private header tells of {{}} slices, which cannot fill {{}} x {{}} pixels: it is wrong, or somebody resized the image"
_APART = f"{_MOSAIC} without SpacingBetweenSlices: how far apart they are is not known, for gaps may lie between them"


def split(file: File, data: Header, whole: Plane) -> tuple[File, tuple[Plane, ...]]:
    """The tiles of a mosaic, each with its place.

    Args:
        file: the file.
        data: its header.
        whole: the mosaic as if it were one slice.
    """
    if not (whole.position and whole.axes and whole.pixel_mm):
        return file, (whole,)  # refused later, like any plane without a place
    places = _uih(data) or _siemens(data, whole)
    if places is None:
        return replace(file, problem=_APART), ()
    if not places:
        return (file, (whole,)) if _is_taken_apart(data, whole) else (replace(file, problem=_UNKNOWN), ())
    per_side = math.ceil(math.sqrt(len(places)))
    if whole.size[0] % per_side or whole.size[1] % per_side:
        return replace(file, problem=_UNFIT.format(len(places), *whole.size)), ()
    rows, columns = whole.size[0] // per_side, whole.size[1] // per_side
    corners = [(n // per_side * rows, n % per_side * columns) for n in range(len(places))]
    return file, tuple(
        replace(whole, corner=corner, size=(rows, columns), position=place, order=(whole.order[0], n))
        for n, (corner, place) in enumerate(zip(corners, places, strict=True))
    )


def _uih(data: Header) -> list[Numbers]:
    """The first pixel of each tile, in mm, from a sequence of an item a tile; none where it is not there, or counts otherwise."""
    count, items = (data.get((0x0065, element)) for element in (0x1050, 0x1051))
    if count is None or items is None or items.VR != "SQ" or _tags.whole(count.value) != len(items.value):
        return []
    places = [_tags.numbers(item.get("ImagePositionPatient"), 3) for item in items.value]
    known = [place for place in places if place]
    return known if len(known) == len(places) else []


def _siemens(data: Header, whole: Plane) -> list[Numbers] | None:
    """The same from the image header: its count and normal, and a mosaic that lies about the centre of the first slice.

    None where that header is there, and nothing says how far slices are apart.
    """
    fields = next((found for blob in _blobs(data) if _COUNT in (found := _csa(blob))), None) or _numaris_x(data)
    count = _tags.whole(next(iter(fields.get(_COUNT, ())), None))
    normal = _tags.numbers([_tags.number(part) for part in fields.get(_NORMAL, ())], 3)
    if count is None or not 0 < count <= _MOST_TILES or normal is None:
        return []
    if whole.thickness_mm is None or whole.thickness_mm[1] != "SpacingBetweenSlices":
        return None
    others = 1 - 1 / math.ceil(math.sqrt(count))  # how much of the mosaic lies beside a tile
    down_mm, right_mm = (others * pixels / 2 * mm for pixels, mm in zip(whole.size, whole.pixel_mm or (), strict=True))
    right, down = np.reshape(whole.axes or (), (2, 3))
    first, step = np.array(whole.position) + right_mm * right + down_mm * down, np.array(normal) * whole.thickness_mm[0]
    return [tuple((first + n * step).tolist()) for n in range(count)]


def _is_taken_apart(data: Header, whole: Plane) -> bool:
    """Whether this is one slice of what was a mosaic: Numaris X and others take mosaics apart, and leave the word where it was.

    Such a slice has about as many pixels as were measured; of a mosaic, each of its rows of tiles has.
    """
    matrix = data.get("AcquisitionMatrix")
    measured = max([_tags.whole(side) or 0 for side in matrix] if isinstance(matrix, Sequence) else [0])
    return max(whole.size) < 2 * measured


def _numaris_x(data: Header) -> dict[str, Any]:
    """The same fields from tags of their own, in the file or in a sequence of one item."""
    own = _private(data, _ITS_OWN)
    for level in (data, *(own if isinstance(own, Sequence) and not isinstance(own, str | bytes) else ())):
        if (count := _private(level, _ITS_COUNT, "<u2")) is not None:
            return {_COUNT: np.atleast_1d(count), _NORMAL: np.atleast_1d(_private(level, _ITS_NORMAL, "<f8") or ())}
    return {}


def _private(data: Header, element: int, kind: str = "") -> Any:
    """A value, None where there is none; in implicit VR pydicom leaves numbers as bytes, of a kind that the maker tells."""
    try:
        value = data.private_block(*_NUMARIS_X)[element].value
    except KeyError:
        return None
    known = kind and isinstance(value, bytes) and len(value) % np.dtype(kind).itemsize == 0
    return np.frombuffer(value, kind).tolist() if known else value


def _blobs(data: Header) -> Iterator[bytes]:
    """The values of private elements that may hold a header of their own."""
    for element in data:
        if element.tag.is_private and isinstance(element.value, bytes) and len(element.value) > 64:
            yield element.value


def _csa(blob: bytes) -> dict[str, list[str]]:
    """The named texts of a CSA header of version 2 ("SV10"); empty where it is none, or damaged.

    Each of its elements has a name (64 bytes), five numbers, of which the fourth counts items, and items of a length and a text
    padded to four bytes. See nibabel.readthedocs.io/en/stable/dicom/siemens_csa.html for the layout.
    """
    fields: dict[str, list[str]] = {}
    if blob[:4] != b"SV10":
        return fields
    try:
        (count,) = struct.unpack_from("<I", blob, 8)
        at = 16
        for _ in range(min(count, 1024)):
            name = blob[at : at + 64].partition(b"\0")[0].decode("latin-1")
            (items,) = struct.unpack_from("<I", blob, at + 76)
            at += 84
            values = []
            for _ in range(min(items, 4096)):
                (length,) = struct.unpack_from("<I", blob, at + 4)
                values.append(blob[at + 16 : at + 16 + length].partition(b"\0")[0].decode("latin-1").strip())
                at += 16 + (length + 3) // 4 * 4
            fields[name] = [value for value in values if value]
    except struct.error:
        return {}
    return fields
