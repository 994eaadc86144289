"""Siemens mosaics: all slices of a volume as tiles of one frame. Where they lie stands in private headers alone.

The frame's position is that of a slice as large as the whole mosaic about the first slice's centre. The number of tiles and the
direction from one to the next are in the image header ("CSA", group 0029), which people who remove names often remove too.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io.dicom import _tags
from medseg.io.dicom._planes import File, Header, Plane

Array = npt.NDArray[Any]
_MOST_TILES = 4096
_COUNT = "NumberOfImagesInMosaic"
_UNKNOWN = "is a mosaic (all slices side by side) whose private header, which says how many slices it holds and which way they go, was removed"


def split(file: File, data: Header, whole: Plane) -> tuple[File, tuple[Plane, ...]]:
    """The tiles of a mosaic, each with its place.

    Args:
        file: the file.
        data: its header.
        whole: the mosaic as if it were one slice.
    """
    if not (whole.position and whole.axes and whole.pixel_mm):
        return file, (whole,)  # refused later, like any plane without a place
    known = _count_and_step(data, whole)
    per_side = math.ceil(math.sqrt(known[0])) if known and 0 < known[0] <= _MOST_TILES else 0
    if known is None or not per_side or whole.size[0] % per_side or whole.size[1] % per_side:
        return replace(file, problem=_UNKNOWN), ()
    (count, step), axes = known, np.reshape(whole.axes, (2, 3))
    size = (whole.size[0] // per_side, whole.size[1] // per_side)
    down_mm, right_mm = ((a - b) / 2 * mm for a, b, mm in zip(whole.size, size, whole.pixel_mm, strict=True))
    first = np.array(whole.position) + right_mm * axes[0] + down_mm * axes[1]
    return file, tuple(
        replace(
            whole,
            corner=(n // per_side * size[0], n % per_side * size[1]),
            size=size,
            position=tuple((first + n * step).tolist()),
            order=(whole.order[0], n),
        )
        for n in range(count)
    )


def _count_and_step(data: Header, whole: Plane) -> tuple[int, Array] | None:
    """How many tiles there are, and the way in mm from one to the next."""
    fields = next((found for blob in _blobs(data) if _COUNT in (found := _csa(blob))), {})
    count = _tags.whole(next(iter(fields.get(_COUNT, ())), None))
    normal = _tags.numbers([_tags.number(text) for text in fields.get("SliceNormalVector", ())], 3)
    if count is None or normal is None or whole.thickness_mm is None:
        return None
    return count, np.array(normal) * whole.thickness_mm[0]


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
