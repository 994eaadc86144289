"""What all formats share: the door between LPS and RAS, and the types of voxels that come in and go out."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg.arrays import Array
from medseg.errors import DataError, GeometryError, MedsegError
from medseg.volume import Geometry, Kind, Volume
from medseg.wording import counted

# DICOM and ITK count towards the patient's left and back (LPS), medseg towards right and front (RAS). Multiplying an affine by
# this from the left changes either into the other; nothing else in medseg knows LPS.
LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))

_WHOLE = 1e-3  # a scale factor stored as float32 leaves a label this near to its whole number
_SHEAR_DEG = 0.01
_WRITING = "cannot be made of this series' headers. Write masks with --format nii.gz, and report this."
_LOGGERS = ("pydicom", "highdicom", "pylibjpeg", "openjpeg", "jpeg_ls")
ROUNDING_MM = 0.06  # some scanners round positions to a tenth of a millimetre
_FARTHEST_MM = 1e9  # a thousand kilometres: nothing lies there, and squares of much more are no numbers


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file name ends in one of these, in any case."""
    return path.name.lower().endswith(suffixes)


class _Quiet:
    """Filters of warnings and loggers belong to all threads: the first one in sets them, and the last one out puts them back."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, contextlib.ExitStack()

    def move(self, step: int) -> None:
        with self.lock:
            if self.inside == 0:
                self.before.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                for logger in map(logging.getLogger, _LOGGERS):
                    self.before.callback(logger.setLevel, logger.level)
                    logger.setLevel(logging.CRITICAL + 1)
            self.inside += step
            if self.inside == 0:
                self.before.close()


_QUIET = _Quiet()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without a DICOM library's remarks on oddities, in whatever threads: what matters is checked here, and they quote values."""
    _QUIET.move(1)
    try:
        yield
    finally:
        _QUIET.move(-1)


@contextlib.contextmanager
def guarded(words: str = "is damaged or incomplete", subject: str = "") -> Iterator[None]:
    """Damage in one place: a DICOM library and its decoders raise whatever a bad byte leads to.

    Args:
        words: what is wrong then.
        subject: stands before the words, where no caller names the file.

    Raises:
        DataError: in place of whatever else is raised: these words, and not its own, which may quote the patient's data.
    """
    try:
        yield
    except MedsegError:
        raise
    except MemoryError as error:
        raise DataError(f"{subject}needs more memory than there is: close other programs") from error
    except OSError as error:
        raise DataError(f"{subject}cannot be read ({error.strerror or type(error).__name__})") from error
    except Exception as error:
        raise DataError(f"{subject}{words} ({type(error).__name__})") from error


@contextlib.contextmanager
def parsing(path: Path) -> Iterator[None]:
    """`guarded` and `quiet`, for a file by itself, which is named.

    Raises:
        DataError: as `guarded`.
    """
    with quiet(), guarded("is a damaged or incomplete DICOM object. Export it again.", f"'{path}' "):
        yield


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """`parsing`, for a file that is being made.

    Raises:
        DataError: as `guarded`.
        OSError: what the disk said, as on one that is full: `files.atomic` explains it. pydicom wraps it in errors of its own.
    """
    try:
        with quiet(), guarded(_WRITING, f"'{path}' "):
            yield
    except DataError as error:
        cause = error.__cause__
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno:
                raise cause from None
            cause = cause.__cause__
        raise


def sop_class(path: Path) -> str:
    """The kind of DICOM object in a file, by its first bytes; empty for a folder, and for other files."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return ""
    from pydicom.filereader import read_file_meta_info

    with quiet(), contextlib.suppress(Exception):  # of a damaged file the reader that takes it will say what is wrong
        return str(read_file_meta_info(path).get("MediaStorageSOPClassUID", ""))
    return ""


def digest(text: str) -> str:
    """A name that tells nothing of a text, as DICOM series have it of their SeriesInstanceUID, and whatever refers to them."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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


def rounding_mm(gap_mm: float) -> float:
    """How far planes of an even stack may lie from their places: positions are text with few digits."""
    return max(0.01 * gap_mm, min(ROUNDING_MM, 0.1 * gap_mm))


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
        count = counted(int(off.sum()), "voxel whose value is no label", "voxels whose values are no labels")
        raise DataError(
            f"'{path}' has {count} ({array[off][0]:.4g} is one); labels are whole "
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
