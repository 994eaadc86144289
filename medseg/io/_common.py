"""What all formats share: the door between LPS and RAS, and the types of voxels that come in and go out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, GeometryError
from medseg.volume import Geometry, Kind, Volume

Array = npt.NDArray[Any]

# DICOM and ITK count towards the patient's left and back (LPS), medseg towards right and front (RAS). Multiplying an affine by
# this from the left changes either into the other; nothing else in medseg knows LPS.
LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))

_WHOLE = 1e-3  # a scale factor stored as float32 leaves a label this near to its whole number
_SHEAR_DEG = 0.01
_FARTHEST_MM = 1e9  # a thousand kilometres: nothing lies there, and squares of much more are no numbers


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file name ends in one of these, in any case."""
    return path.name.lower().endswith(suffixes)


def geometry(path: Path, shape: tuple[int, ...], affine: Array, *, lps: bool = False) -> Geometry:
    """A grid as read from a file.

    Raises:
        GeometryError: no such grid can be; the file is named.
    """
    try:
        with np.errstate(all="ignore"):  # a damaged header holds any number; what is not finite is refused
            grid = Geometry((shape[0], shape[1], shape[2]), LPS_TO_RAS @ affine if lps else affine)
        if (farthest := np.abs(grid.affine).max()) > _FARTHEST_MM:
            raise GeometryError(f"its affine holds a length of {farthest:.3g} mm. Is the header damaged?")
        return grid
    except GeometryError as error:
        raise GeometryError(f"'{path}': {error}") from error


def shear_note(grid: Geometry) -> tuple[str, ...]:
    """A note about axes that are not at right angles, or nothing."""
    return (f"axes are up to {grid.shear_deg:.2f} degrees off right angles",) if grid.shear_deg > _SHEAR_DEG else ()


def volume(path: Path, array: Array, grid: Geometry, kind: Kind, meta: Mapping[str, Any]) -> Volume:
    """A volume in native byte order: images as integers or float32, label maps as integers.

    Args:
        path: named in errors.
        array: `(C, I, J, K)` as the file stores it.
        grid: its grid.
        kind: "labels" takes floats that hold whole numbers and makes integers of them.
        meta: facts of the file, to which `stored_dtype` is added.

    Raises:
        DataError: complex or colour voxels, or labels that are not whole numbers.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"'{path}' holds {_word(array.dtype)} voxels; expected integers or floats. Convert it first.")
    meta = {**meta, "stored_dtype": array.dtype.name}
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f":
        array = _whole(path, array) if kind == "labels" else _single(array)
    return Volume(array, grid, kind, meta)


def _word(dtype: np.dtype[Any]) -> str:
    return "complex" if dtype.kind == "c" else "colour" if dtype.names else str(dtype)


def _single(array: Array) -> Array:
    with np.errstate(over="ignore"):  # beyond float32 is infinite: kept, and reported by the doctor
        return array.astype(np.float32, copy=False)


def _whole(path: Path, array: Array) -> Array:
    with np.errstate(invalid="ignore"):  # what is not finite fails both comparisons
        whole = np.rint(array)
        off = ~((np.abs(array - whole) <= _WHOLE) & (np.abs(array) < 2**31))
    if off.any():
        raise DataError(
            f"'{path}' has {off.sum()} voxels whose values are no labels ({array[off][0]:.4g} is one); labels are whole "
            "numbers. Was the mask resampled with interpolation, or is this an image?"
        )
    return whole.astype(smallest_integer(whole))


def smallest_integer(array: Array) -> np.dtype[Any]:
    """The smallest integer type that holds all values of an array; unsigned where none is negative."""
    low, high = int(array.min()), int(array.max())
    return np.min_scalar_type(high if low >= 0 else min(low, -high - 1))


def stored(volume: Volume) -> Array:
    """The array `(C, I, J, K)` as it goes into a file: label maps in the smallest integer type, half and double floats single."""
    if volume.kind == "labels":
        return volume.array.astype(smallest_integer(volume.array), copy=False)
    array = volume.array.astype(np.uint8) if volume.array.dtype.kind == "b" else volume.array
    return _single(array) if array.dtype.kind == "f" else array
