"""What Pillow does not say of a TIFF, or gets wrong: parts that are missing, types of numbers, the order of bytes."""

from __future__ import annotations

import math
import re
from typing import Any

from PIL import Image, TiffImagePlugin

# Tags of TIFF 6.0, sections 8 and 15.
_OFFSETS, _ROWS, _PLANAR, _SAMPLES, _BITS, _FORMAT = 273, 278, 284, 277, 258, 339
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324
_UNSIGNED, _SIGNED, _APART = 1, 2, 2
TiffImagePlugin.OPEN_INFO.update(  # Pillow unpacks these, and does not know that TIFF has them
    {
        (b"II", 1, (3,), 1, (64,), ()): ("F", "F;64F"),
        (b"MM", 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
        (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32BS"),
    }
)


def is_whole(image: Image.Image) -> bool:
    """Whether the page that is open has as many strips or tiles as its size takes."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    tags = image.tag_v2
    width, height = image.size
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


def keep_order(image: Any) -> None:
    """Have the page that is open unpacked as it is.

    libtiff gives numbers in this machine's order; where the file's is the other one, Pillow turns most of them round once more.
    """
    image.tile = [_kept(tile) if tile[0] == "libtiff" else tile for tile in getattr(image, "tile", ())]


def _kept(tile: Any) -> Any:
    make = getattr(type(tile), "_make", tuple)  # until Pillow 11 it was a plain tuple
    raw, *others = tile[3]
    return make((*tile[:3], (re.sub(r";(32|64|16(?=BS))B", r";\1N", raw), *others)))


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
