"""How a picture is turned before it is shown (EXIF 2.3 and TIFF 6.0, tag Orientation): masks are drawn on what viewers show."""

from __future__ import annotations

import contextlib

from PIL import ExifTags, Image, TiffImagePlugin

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NOTE = "its Orientation says that it is shown turned or mirrored; rows and columns are those of the picture as shown"


def is_turned(image: Image.Image) -> bool:
    """Whether what is shown is not what is stored."""
    return _orientation(image) in _TURNS


def size(image: Image.Image) -> tuple[int, int]:
    """Columns and rows of the picture as shown. Of a TIFF Pillow gives no others."""
    width, height = image.size
    return (height, width) if _orientation(image) > 4 and image.format != "TIFF" else (width, height)


def shown(image: Image.Image) -> Image.Image:
    """The picture as shown. A TIFF is turned by Pillow while it is loaded."""
    turn = _TURNS.get(_orientation(image)) if image.format != "TIFF" else None
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where nothing is said, or nothing that can be understood."""
    with contextlib.suppress(Exception):  # odd metadata is no reason to refuse pixels
        # not the method of PNGs, which reads all pixels for what may stand behind them
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else Image.Image.getexif(image)
        found = tags.get(ExifTags.Base.Orientation, 1)
        return found if found in _TURNS else 1
    return 1
