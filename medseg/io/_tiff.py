"""What Pillow does not say of a TIFF, or gets wrong: parts that are missing, types of numbers, the order of bytes, white as 0."""

from __future__ import annotations

import math
import re
from typing import Any

from PIL import Image, TiffImagePlugin

# Tags of TIFF 6.0, sections 8 and 15.
_WIDTH, _LENGTH, _INK, _OFFSETS, _ROWS, _PLANAR, _SAMPLES, _BITS, _FORMAT = 256, 257, 262, 273, 278, 284, 277, 258, 339
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED, _APART = 0, 1, 2, 2
TiffImagePlugin.OPEN_INFO.update(  # Pillow unpacks these, and does not know that TIFF has them
    {
        (b"II", 1, (3,), 1, (64,), ()): ("F", "F;64F"),
        (b"MM", 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
        (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32BS"),
    }
)
TiffImagePlugin.OPEN_INFO.update(  # deep ones that count down from white are stored like those that count up from black
    {
        (order, _WHITE_IS_ZERO, form, fill, bits, extra): mode
        for (order, ink, form, fill, bits, extra), mode in TiffImagePlugin.OPEN_INFO.items()
        if ink == 1 and bits[0] > 8
    }
)


def is_whole(image: Image.Image) -> bool:
    """Whether the page that is open has as many strips or tiles as its size takes."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_LENGTH]  # as stored, and not as shown
    tiled = _TILE_OFFSETS in tags
    wide, high = (tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)) if tiled else (width, tags.get(_ROWS, height))
    planes = tags.get(_SAMPLES, 1) if tags.get(_PLANAR) == _APART else 1
    needed = math.ceil(width / max(wide, 1)) * math.ceil(height / max(high, 1)) * planes
    return len(_several(tags.get(_TILE_OFFSETS if tiled else _OFFSETS))) >= needed


def dtype(image: Image.Image) -> str | None:
    """The type of the pixels where Pillow has none for it, and gives their bits as another one."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    form, bits = (_several(image.tag_v2.get(tag))[:1] for tag in (_FORMAT, _BITS))
    return {((_SIGNED,), (8,)): "i1", ((), (32,)): "u4", ((_UNSIGNED,), (32,)): "u4"}.get((form, bits))


def is_inverse(image: Image.Image) -> bool:
    """Whether low values of grey are meant to be shown bright, as DICOM's MONOCHROME1 says it. Of single bits white is 1 in any case."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode == "1":
        return False
    return bool(image.tag_v2.get(_INK, _WHITE_IS_ZERO) == _WHITE_IS_ZERO)


def keep_values(image: Image.Image) -> None:
    """Have the page that is open unpacked as it is.

    libtiff gives numbers in this machine's order; where the file's is the other one, Pillow turns most of them round once more.
    Where white is 0 it inverts grey of eight bits, and none deeper: of a mask from ImageJ background would become the structure.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        inverse = is_inverse(image)
        image.tile = [_kept(tile, inverse) for tile in image.tile]


def _kept(tile: Any, inverse: bool) -> Any:
    make = getattr(type(tile), "_make", tuple)  # until Pillow 11 it was a plain tuple
    raw, *others = tile[3]
    if tile[0] == "libtiff":
        raw = re.sub(r";(32|64|16(?=BS))B", r";\1N", raw)
    if inverse:
        raw = re.sub(r"^L;([24]?)I(R?)$", r"L;\1\2", raw).rstrip(";")
    return make((*tile[:3], (raw, *others)))


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
