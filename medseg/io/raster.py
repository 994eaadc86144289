"""Plain images: PNG, TIFF (of several pages too) and JPEG, by Pillow.

I counts columns and J rows, from the upper left; K counts the pages of a TIFF. Such files say nothing reliable about
millimetres: a pixel is 1 mm, unless the caller knows better, or a file `NAME.json` beside the image, as nnU-Net has them.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg import picture
from medseg.arrays import Array
from medseg.errors import DataError
from medseg.files import atomic, read_json
from medseg.io import _common, _exif, _packed, _png, _tiff
from medseg.volume import Geometry, Kind, Volume
from medseg.wording import counted

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
OPTIONS = ("spacing_mm",)
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
_RAW, _PACKED = 8, 1 << 14  # bytes of pixels that a byte of a file may hold: eight bits, or a blank page in any packing
_SIDECAR = 1 << 16  # bytes of a file that says how large pixels are
COARSE = "of the 16 bits of a colour, or of grey beside transparency, only 8 are read"
INVERSE = "WhiteIsZero: meant to be shown with low values bright; the values are kept as stored"
NOTE = "plain images hold no position and no size: a pixel is taken as 1 mm"


def matches(path: Path) -> bool:
    """Whether the name is that of a plain image."""
    return _common.has_suffix(path, SUFFIXES)


def read(path: Path, kind: Kind, spacing_mm: Sequence[float] | None = None) -> Volume:
    """Read a file in full: one grey channel, or red, green and blue; transparency is dropped.

    Args:
        path: of the file; pages of a TIFF become slices.
        kind: colours of "labels" become numbers, see `picture.numbered`; what is transparent is background.
        spacing_mm: of columns, rows and pages; without it that of `NAME.json` beside the file, or 1 mm.

    Raises:
        DataError: the file is damaged, too large, of unequal pages, or a mask in JPEG; or a spacing that cannot be.
    """
    if kind == "labels" and _common.has_suffix(path, (".jpg", ".jpeg")):
        raise DataError(f"'{path}': JPEG changes values, so it cannot hold a mask. Export the mask as PNG.")
    with _opened(path) as image:
        grid, meta = _grid(path, image, spacing_mm)
        if image.format == "PNG" and not _png.is_whole(path):
            raise DataError(f"'{path}' has fewer rows than its header says. Copy it again from its source.")
        if _is_coarsened(image):
            if kind == "labels":
                raise DataError(
                    f"'{path}': {COARSE}, so that labels may become one. Export the mask in 8 bits, or in grey."
                )
            meta["notes"] += (COARSE,)
        if _tiff.is_inverse(image):
            meta["notes"] += (INVERSE,)
        if _exif.is_turned(image):
            meta["notes"] += (_exif.NOTE,)
        array = _pages(path, image, kind, grid)
    return _common.volume(path, array, grid, kind, meta)


def read_geometry(path: Path) -> Geometry:
    """The grid, from the headers alone."""
    with _opened(path) as image:
        return _grid(path, image, None)[0]


def parts(path: Path) -> list[Path]:
    """The file, and the one beside it that says how large its pixels are."""
    return [path, *_sidecars(path)[:1]]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's image of a file; whatever Pillow says of a file that it cannot read becomes one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which are refused at twice the size, and of odd metadata
            # of a stream: where Pillow maps a file into memory, it scrambles TIFFs that are shown turned
            with path.open("rb") as stream, Image.open(stream, formats=("PNG", "TIFF", "JPEG")) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise DataError(f"'{path}' has more pixels than are read at once. Cut it into tiles.") from error
    except _DAMAGE as error:
        raise DataError(
            f"'{path}' is no image, of numbers that are not read (integers of 64 bits, half floats), cut short or damaged. Save "
            "it anew, or copy it again from its source."
        ) from error


def _grid(path: Path, image: Image.Image, spacing_mm: Sequence[float] | None) -> tuple[Geometry, dict[str, Any]]:
    """Rows from front to back, columns from right to left, pages from below; and what is not known of them."""
    pages = getattr(image, "n_frames", 1)
    _check_promise(path, image, pages)
    if pages > 1 and image.format != "TIFF":
        raise DataError(f"'{path}' has {pages} pictures; expected one, or a TIFF of slices. Save it anew as TIFF.")
    known = spacing_mm or _told(path)
    i, j, k = _checked(path, known) if known else (1.0, 1.0, 1.0)
    return Geometry((*_exif.size(image), pages), np.diag((-i, -j, k, 1.0))), {"notes": () if known else (NOTE,)}


def _check_promise(path: Path, image: Image.Image, pages: int) -> None:
    """Refuse more pixels than a file can hold, before there is memory for them."""
    deep = {"I": 2 if ";" in image.mode else 4, "F": 4}.get(image.mode[0], len(image.getbands()))
    densest = _RAW if image.format == "TIFF" and image.info.get("compression") == "raw" else _PACKED
    if math.prod(image.size) * pages * deep > densest * (there := path.stat().st_size):
        raise DataError(f"'{path}' promises {image.width}x{image.height} pixels in {there:,} bytes. Copy it again.")


def _told(path: Path) -> list[float] | None:
    """The spacing of `NAME.json` beside the image: slices, rows, columns, as the axes of an array of pages."""
    for file in _sidecars(path):
        told = read_json(file)
        if isinstance(told, dict) and isinstance(told.get("spacing"), list):
            return [1.0, *told["spacing"]][-3:][::-1]
    return None


def _sidecars(path: Path) -> list[Path]:
    """Where the size of pixels may be told: under the name of the image, or of the case that it is a channel of."""
    names = dict.fromkeys((path.stem, re.sub(r"_\d{4}$", "", path.stem)))
    files = [path.with_name(f"{name}.json") for name in names]
    return [file for file in files if file.is_file() and file.stat().st_size < _SIDECAR]


def _is_coarsened(image: Image.Image) -> bool:
    """Whether Pillow gives 8 bits of 16."""
    return image.mode not in _NUMBERS and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _checked(path: Path, spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    try:
        i, j, k = map(float, spacing_mm)
        if not all(0 < step < math.inf for step in (i, j, k)):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise DataError(f"'{path}': a spacing is three lengths in mm, such as 0.5,0.5,2; got {spacing_mm}.") from error
    return i, j, k


def _pages(path: Path, image: Image.Image, kind: Kind, grid: Geometry) -> Array:
    """All pages `(C, I, J, K)`; memory is taken page by page."""
    found: Array | None = None
    for number in range(grid.shape[2]):
        if grid.shape[2] > 1:
            image.seek(number)
        if not _tiff.is_whole(image):
            raise DataError(
                f"'{path}' lacks a part of page {number + 1} of {grid.shape[2]}. Copy it again from its source."
            )
        _tiff.keep_values(image)
        # Of a page that lies about its size nothing is read.
        page = _plain(_exif.shown(image), kind) if _exif.size(image) == grid.shape[:2] else np.empty((0, 0))
        page = page.reshape((*page.shape, 1)[:3]).T
        if found is None:
            _packed.check_memory(path, page.nbytes * grid.shape[2])
            found = np.empty((*page.shape, grid.shape[2]), page.dtype, order="F")
        if page.shape != found.shape[:3] or page.dtype != found.dtype:
            raise DataError(f"'{path}' has pages of different sizes or colours; expected the slices of one volume.")
        found[..., number] = page
    assert found is not None  # there is always one page
    return found


def _plain(image: Image.Image, kind: Kind) -> Array:
    """Pixels `(rows, columns)` or with a third axis of colours; bits and indices into a palette are the labels of a mask."""
    if own := _tiff.dtype(image):
        return np.asarray(image).view(own)
    if image.mode in _NUMBERS or (kind == "labels" and image.mode in ("1", "P")):
        return np.asarray(image)
    if kind == "labels":
        pixels = np.asarray(image.convert("RGBA"))
        return np.where(pixels[..., 3] > 0, picture.numbered(pixels[..., :3]), 0)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def write(volume: Volume, path: Path) -> None:
    """Write `.png` atomically: grey in 8 or 16 bits, or three channels in 8; labels that were colours become colours again.

    Raises:
        DataError: more than one slice, values that PNG cannot hold, or the file cannot be written.
    """
    array = _common.stored(volume)
    if volume.kind == "labels" and array.max() >= picture.COLOURED and len(array) == 1:
        with contextlib.suppress(ValueError):  # levels that no colour is left for
            array = np.moveaxis(picture.coloured(array[0]), -1, 0)
    kinds = {1: (np.uint8, np.uint16), 3: (np.uint8,)}
    if array.shape[3] > 1 or array.dtype not in kinds.get(len(array), ()):
        raise DataError(
            f"'{path}': PNG holds one slice of whole numbers from 0 to 65535 (or three channels to 255); "
            f"this is {counted(len(array), 'channel')} of {array.dtype} and {counted(array.shape[3], 'slice')}. Use .nii.gz."
        )
    pixels = array[..., 0].T  # rows, columns, channels
    with atomic(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels[..., 0] if len(array) == 1 else pixels)).save(temporary)
