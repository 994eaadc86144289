"""What makers write into tags of their own although the standard has one: b-values and directions of diffusion, complex parts.

Without these the volumes of older series could be told apart by nothing but the order of their images.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from medseg.io.dicom import _tags
from medseg.io.dicom._planes import Header


class _Place(NamedTuple):
    """Elements of a private block."""

    group: int
    creator: str
    elements: tuple[int, ...]


# From the makers' conformance statements.
_B_VALUES = (
    _Place(0x0019, "SIEMENS MR HEADER", (0x0C,)),
    _Place(0x0043, "GEMS_PARM_01", (0x39,)),
    _Place(0x2001, "Philips Imaging DD 001", (0x03,)),
    _Place(0x0065, "Image Private Header", (0x09,)),  # United Imaging
)
_DIRECTIONS = (
    _Place(0x0019, "SIEMENS MR HEADER", (0x0E,)),
    _Place(0x0019, "GEMS_ACQU_01", (0xBB, 0xBC, 0xBD)),
    _Place(0x2005, "Philips MR Imaging DD 001", (0xB0, 0xB1, 0xB2)),
    _Place(0x0065, "Image Private Header", (0x37,)),
)
_PART = _Place(0x0043, "GEMS_PARM_01", (0x2F,))
_PARTS = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")  # as GE counts them
_GE_FLAG = 100_000  # GE marks b-values by adding a multiple of this (1000000800 is 800)
TAGS = tuple(  # of the blocks' usual places, with their creators
    place.group << 16 | low
    for place in (*_B_VALUES, *_DIRECTIONS, _PART)
    for low in (0x10, *(0x1000 | element for element in place.elements))
)


def told(data: Header) -> dict[str, Any]:
    """What makers' tags say, under the keywords of the standard."""
    return _diffusion(data) | _complex_part(data)


def _complex_part(data: Header) -> dict[str, Any]:
    """Which part of complex values a GE shows: its ImageType is the same for all."""
    number = next(iter(_numbers(data, _PART)), -1) if data.get("Modality") == "MR" else -1
    return {"ComplexImageComponent": _PARTS[int(number)]} if number in range(len(_PARTS)) else {}


def _diffusion(data: Header) -> dict[str, Any]:
    """b-value in s/mm2 and direction; nothing where no tag says them."""
    b_value = next((found[0] for place in _B_VALUES if (found := _numbers(data, place))), None)
    if b_value is None or b_value < 0:
        return {}
    direction = next((found for place in _DIRECTIONS if len(found := _numbers(data, place)) == 3), None)
    known = {"DiffusionBValue": b_value % _GE_FLAG}
    return known | ({"DiffusionGradientOrientation": direction} if direction and b_value else {})


def _numbers(data: Header, place: _Place) -> list[float]:
    if place.group << 16 | 0x10 not in data:
        return []
    try:
        block = data.private_block(place.group, place.creator)
        values = [block[element].value for element in place.elements]
    except KeyError:
        return []
    return [n for value in values for part in _parts(value) if (n := _tags.number(part)) is not None]


def _parts(value: Any) -> Sequence[Any]:
    """The numbers of a value; in implicit VR pydicom leaves those of some makers as the bytes of doubles."""
    if isinstance(value, bytes) and len(value) % 8 == 0 and _tags.number(value) is None:
        return struct.unpack(f"<{len(value) // 8}d", value)
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,)
