"""Plain 2D images: PNG, TIFF and JPEG, by Pillow.

I counts columns and J rows, from the upper left; K == 1. Such files say nothing reliable about millimetres: a pixel is 1 mm.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medseg.errors import DataError
from medseg.files import atomic
from medseg.io import _common
from medseg.volume import Geometry, Kind, Volume

Array = npt.NDArray[Any]

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
WRITTEN = (".png",)
_NUMBERS = ("L", "I", "F", "I;16", "I;16L", "I;16B")  # modes of Pillow whose pixels are one number
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    zlib.error,
)  # Pillow's ways
NOTE = "plain images hold no position and no size: a pixel is taken as 1 mm"


def matches(path: Path) -> bool:
    """Whether the name is that of a plain image."""
    return _common.has_suffix(path, SUFFIXES)


def read(path: Path, kind: Kind) -> Volume:
    """Read a file in full: one grey channel, or red, green and blue; transparency is dropped.

    Raises:
        DataError: the file is damaged, too large, of several pages, or a mask in colour or JPEG.
    """
    if kind == "labels" and _common.has_suffix(path, (".jpg", ".jpeg")):
        raise DataError(f"'{path}': JPEG changes values, so it cannot hold a mask. Export the mask as PNG.")
    with _opened(path) as image:
        grid, array = _grid(image), np.asarray(_plain(image, kind))
    if kind == "labels" and array.ndim > 2:
        raise DataError(
            f"'{path}' is a colour image; a mask holds one number a pixel. Export label values as grey PNG."
        )
    return _common.volume(path, array.T.reshape((-1, *grid.shape)), grid, kind, {"notes": (NOTE,)})


def read_geometry(path: Path) -> Geometry:
    """The grid, from the header alone."""
    with _opened(path) as image:
        return _grid(image)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's image of a file of one page; whatever Pillow says of a file that it cannot read becomes one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are refused at twice the size, and of odd metadata
            with Image.open(path, formats=("PNG", "TIFF", "JPEG")) as image:
                if (pages := getattr(image, "n_frames", 1)) > 1:
                    raise DataError(
                        f"'{path}' has {pages} pages; expected one. Save a stack as .nii.gz, with its spacing."
                    )
                yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"'{path}' has more pixels than are read at once. Cut it into tiles.") from error
    except _DAMAGE as error:
        raise DataError(f"'{path}' is no image, cut short or damaged. Copy it again from its source.") from error


def _grid(image: Image.Image) -> Geometry:
    return Geometry((*image.size, 1), np.diag((-1.0, -1.0, 1.0, 1.0)))


def _plain(image: Image.Image, kind: Kind) -> Image.Image:
    """Without palette and transparency; bits and indices into a palette are the labels of a mask."""
    if image.mode in _NUMBERS or (kind == "labels" and image.mode in ("1", "P")):
        return image
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def write(volume: Volume, path: Path) -> None:
    """Write `.png` atomically: grey in 8 or 16 bits, or three channels in 8.

    Raises:
        DataError: more than one slice, values that PNG cannot hold, or the file cannot be written.
    """
    array = _common.stored(volume)
    kinds = {1: (np.uint8, np.uint16), 3: (np.uint8,)}
    if array.shape[3] > 1 or array.dtype not in kinds.get(len(array), ()):
        raise DataError(
            f"'{path}': PNG holds one slice of whole numbers from 0 to 65535 (or three channels to 255); "
            f"this is {len(array)} channel(s) of {array.dtype} and {array.shape[3]} slice(s). Use .nii.gz."
        )
    pixels = array[..., 0].T  # rows, columns, channels
    with atomic(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels[..., 0] if len(array) == 1 else pixels)).save(temporary)
