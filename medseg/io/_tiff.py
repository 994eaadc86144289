"""What Pillow does not say of a TIFF: parts that are missing, which it takes for black, and bytes with a sign."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image, TiffImagePlugin

# Tags of TIFF 6.0, sections 8 and 15.
_OFFSETS, _ROWS, _PLANAR, _SAMPLES, _BITS, _FORMAT = 273, 278, 284, 277, 258, 339
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324
_SIGNED, _APART = 2, 2


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


def has_signed_bytes(image: Image.Image) -> bool:
    """Whether pixels are bytes from -128 to 127."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    tags = image.tag_v2
    return _several(tags.get(_FORMAT))[:1] == (_SIGNED,) and _several(tags.get(_BITS))[:1] == (8,)


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
