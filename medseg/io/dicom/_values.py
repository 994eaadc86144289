"""The voxels of planes in the unit of the file: decoded, without unused bits, rescaled plane by plane."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError
from medseg.io import _common
from medseg.io.dicom import _datasets
from medseg.io.dicom._planes import Header, Plane
from medseg.io.dicom._sources import Source

_VOXELS = ("FloatPixelData", "DoubleFloatPixelData", "PixelData")
_TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    *_VOXELS,
)
_FREE_BYTES = 64 << 20  # of one frame, that a header may ask for whatever the size of its file
_MOST_SHRUNK = 4096  # times: beyond what codecs make of anything but emptiness
_WHOLE = 1 << 30  # below it slope and intercept leave 32 bits within 64
_PACKAGES = {  # what decodes a compression, by a word of its name; the first that fits counts
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG Extended": "pylibjpeg pylibjpeg-libjpeg",  # the 12 bits of the GPL
    "JPEG": "python-gdcm",
}


def voxels(planes: Sequence[Plane]) -> Array:
    """The values `(planes, rows, columns)`: integers where slopes and intercepts are whole, else float32.

    Raises:
        DataError: no decoder, or files that are damaged or smaller than their headers say. No path is named.
    """
    with _common.quiet():
        return np.stack([_plane(plane) for plane in planes])


def _plane(plane: Plane) -> Array:
    array = _rescaled(_cut(_frame(plane), plane), *(plane.rescale or (1.0, 0.0)))
    if not all(np.array_equal(array, _plane(copy)) for copy in plane.copies):
        raise DataError(
            "has two files of one SOPInstanceUID whose values differ; which of them is right cannot be known"
        )
    return array


def _frame(plane: Plane) -> Array:
    """The stored values of a whole frame."""
    with _common.guarded():
        data, syntax = _opened(plane.file.source)
        _check_size(data, plane)
        decoder = _decoder(syntax)
        _check_voxels(data, plane, decoder.UID.is_encapsulated)
        if not decoder.is_available or _is_beyond(decoder, data):
            name = decoder.UID.name
            raise DataError(f"is compressed ({name}). Install its decoder: pip install {_package(name)}")
        options: Any = {"correct_unused_bits": False}  # so that what they hold is known below
        array, _ = decoder.as_array(data, index=plane.frame, raw=True, **options)
        return _meaningful_bits(array, data)


def _decoder(syntax: str) -> Any:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID_dictionary

    try:
        return get_decoder(syntax)
    except NotImplementedError as error:
        name = UID_dictionary.get(syntax, ("a maker's own, or unknown",))[0]
        raise DataError(f"is in a transfer syntax that is not read ({name}). Export it uncompressed") from error


@functools.lru_cache(maxsize=2)  # frames of one file, and of its copy, come one after the other
def _opened(source: Source) -> tuple[Header, str]:
    return _datasets.selected(source, _TAGS)


def _check_size(data: Header, plane: Plane) -> None:
    """No memory for a header that the file cannot back."""
    promised, there = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8, plane.file.source.stamp[1]
    if promised > max(_FREE_BYTES, there * _MOST_SHRUNK):
        raise DataError(f"promises images of {promised:,} bytes in a file of {there:,}. Export it again.")


def _check_voxels(data: Header, plane: Plane, compressed: bool) -> None:
    """No image of which a part is missing, and no bits that cannot be."""
    stored, bits = int(data.get("BitsStored") or data.BitsAllocated), int(data.BitsAllocated)
    if not 0 < stored <= bits:
        raise DataError(f"says that {stored} of {bits} bits hold a value, which cannot be. Export it again.")
    there = max((len(data[word].value or b"") for word in _VOXELS if word in data), default=0)
    needed = (plane.frame + 1) * int(data.Rows) * int(data.Columns) * bits // 8
    if not there or (there < needed and not compressed):
        raise DataError(f"is cut off: {there:,} of {needed:,} bytes of voxels are there. Export it again.")


def _is_beyond(decoder: Any, data: Header) -> bool:
    """Whether this is lossy JPEG of 12 bits, which gdcm and pillow leave to a decoder under the GPL."""
    twelve = decoder.UID.name.startswith("JPEG Extended") and int(data.BitsStored) > 8
    return twelve and "pylibjpeg" not in decoder.available_plugins


def _package(name: str) -> str:
    return next((package for word, package in _PACKAGES.items() if word in name), "python-gdcm")


def _meaningful_bits(array: Array, data: Header) -> Array:
    """Bits outside of those stored may hold anything, old overlays for instance: push them out and extend the sign."""
    bits, high = data.get("BitsStored"), data.get("HighBit")
    if array.dtype.kind not in "iu" or not bits:
        return array
    size = array.dtype.itemsize * 8
    above = size - 1 - max(bits - 1, high or 0)  # a high bit below that is an old header's, and nobody heeds it
    return (array << max(0, above)) >> (size - bits)


def _cut(frame: Array, plane: Plane) -> Array:
    (row, column), (rows, columns) = plane.corner, plane.size
    return frame[row : row + rows, column : column + columns]


def _rescaled(array: Array, slope: float, intercept: float) -> Array:
    whole = slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < _WHOLE
    if array.dtype.kind not in "iu" or not whole:
        return (array * slope + intercept).astype(np.float32)
    small = array.dtype.itemsize <= 2 and max(abs(slope), abs(intercept)) < 1 << 14
    values = array.astype(np.int32 if small else np.int64) * int(slope) + int(intercept)
    lowest = min(int(values.min()), -int(values.max()) - 1)
    return values.astype(np.result_type(np.int16, np.min_scalar_type(lowest)))
