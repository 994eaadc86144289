"""DICOM: a plain series of single frames in a folder. What is not understood is refused with its numbers, never guessed."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, GeometryError, MedsegError
from medseg.io import _common
from medseg.volume import Geometry, Kind, Volume

Array = npt.NDArray[Any]
Header = Any  # pydicom's Dataset; pydicom is imported when a file is read

SUFFIXES = (".dcm", ".ima", ".dicom")
_WHAT = ["SeriesInstanceUID", "ImageType", "Modality", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"]
_WHERE = ["Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"]
_THICKNESS = ["SpacingBetweenSlices", "SliceThickness"]
_SAME = 1e-4  # how far the orientations (and pixel sizes, in mm) of slices may differ: text has few digits
_ROUNDING_MM = 0.06  # some scanners round positions to a tenth of a millimetre
_TILT_DEG = 0.1


def matches(path: Path) -> bool:
    """Whether this is a folder or, by its name or first bytes, a DICOM file."""
    return path.is_dir() or _common.has_suffix(path, SUFFIXES) or (path.is_file() and _has_magic(path))


def read(path: Path, kind: Kind) -> Volume:
    """Read the one series of single frames in (or below) a folder; one file is a series of one slice.

    Slices are sorted by their position along the normal of the image plane. A tilted gantry shears the grid, and the affine
    says so exactly. Stored values become Hounsfield or other units slice by slice, and stay integers where slope and
    intercept are whole. MONOCHROME1 tells a screen to show low values bright: the values themselves are kept.

    Raises:
        DataError: no series or several, several frames in a file, colour, a compression without decoder, damaged files.
        GeometryError: no positions, several images at one position, or positions that form no regular grid.
    """
    series = _series(path)
    grid, order, notes = _grid(path, series)
    first = series[order[0]]
    if first.PhotometricInterpretation == "MONOCHROME1":
        notes.append("MONOCHROME1: meant to be shown with low values bright; the values are kept as stored")
    meta = {"modality": str(first.get("Modality", "")), "series": _digest(first), "notes": tuple(notes)}
    stack = np.stack([_slice(path, series[n]) for n in order])
    return _common.volume(path, stack.T[None], grid, kind, meta)


def read_geometry(path: Path) -> Geometry:
    """The grid, from the headers alone."""
    return _grid(path, _series(path))[0]


def identifier(path: Path) -> str:
    """A name that tells nothing about the patient: a hash of the SeriesInstanceUID.

    It is one of the path where there is no such series or several: reading it will say why.
    """
    try:
        return _digest(_series(path)[0])
    except DataError:
        return _hash(str(path))


def _digest(header: Header) -> str:
    return _hash(str(header.get("SeriesInstanceUID", "")))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _has_magic(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Damage in one place: pydicom warns of oddities that are checked here, and raises whatever a bad byte leads to."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MedsegError, MemoryError):
        raise
    except Exception as error:  # its text may quote the patient's data
        raise DataError(
            f"'{path}' holds a damaged or incomplete DICOM file ({type(error).__name__}). Export the series again."
        ) from error


def _series(path: Path) -> list[Header]:
    """The headers of the images of the one series, all of them plain single frames."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    with _parsing(path):
        headers = [_header(file) for file in files if _common.has_suffix(file, SUFFIXES) or _has_magic(file)]
        images = [header for header in headers if "Rows" in header]  # reports, plans and directories have none
        sizes = collections.Counter(str(header.get("SeriesInstanceUID")) for header in images)
        if not images:
            raise DataError(f"'{path}' holds no DICOM images; expected a series of them.")
        kinds = {_kind(header) for header in images}
        if cut := sum("Rows" not in header and _kind(header) in kinds for header in headers):
            raise DataError(
                f"'{path}' holds {cut} image(s) of which only the beginning is there. Export the series again."
            )
        if len(sizes) > 1:
            counts = ", ".join(map(str, sorted(sizes.values())))
            raise DataError(
                f"'{path}' holds {len(sizes)} series (of {counts} images); expected one. Put each in a folder of its own."
            )
        for header in images:
            if reason := _unsupported(header):
                raise DataError(
                    f"'{path}' {reason}; expected single grey frames. Convert it, for instance with dcm2niix."
                )
    return images


def _header(file: Path) -> Header:
    import pydicom

    return pydicom.dcmread(
        file, stop_before_pixels=True, specific_tags=[*_WHAT, *_WHERE, *_THICKNESS, "ModalityLUTSequence"]
    )


def _kind(header: Header) -> str:
    """What sort of object it is, from the beginning of the file, which is there if anything is."""
    return str(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID", ""))


def _unsupported(header: Header) -> str:
    frames = int(header.get("NumberOfFrames") or 1)
    colours = header.get("PhotometricInterpretation")
    if frames > 1:
        return f"holds {frames} frames in one file"
    if header.get("SamplesPerPixel", 1) != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        return f"holds colour images ({colours})"
    if "MOSAIC" in (header.get("ImageType") or ()):
        return "holds mosaics (all slices side by side in one frame)"
    return "has a lookup table for its values" if "ModalityLUTSequence" in header else ""


def _grid(path: Path, series: Sequence[Header]) -> tuple[Geometry, list[int], list[str]]:
    """The grid, the order of the slices along it, and what was odd."""
    with _parsing(path):
        planes = np.array([_plane(path, header) for header in series])
        right, down, pixel_mm, size = _shared(path, planes)
        normal = np.cross(right, down)
        order = np.argsort(planes[:, :3] @ normal, kind="stable")
        positions = planes[order, :3]
        place = _stack(path, positions, normal) if len(series) > 1 else _alone(series[0], positions[0], normal)
        origin, step, notes = place
    affine = np.eye(4)
    affine[:3] = np.column_stack((right * pixel_mm[1], down * pixel_mm[0], step, origin))
    shape = (int(size[1]), int(size[0]), len(series))
    return _common.geometry(path, shape, _common.LPS_TO_RAS @ affine), order.tolist(), notes


def _plane(path: Path, header: Header) -> list[float]:
    """Where one image lies: position (3), direction of its rows and columns (6), pixel size down and right (2), size (2)."""
    parts = [header.get(name) for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")]
    if [len(part or ()) for part in parts] != [3, 6, 2]:
        raise GeometryError(f"'{path}' has images without position, orientation or pixel size: no volume can be made.")
    return [float(number) for part in parts for number in part] + [header.Rows, header.Columns]


def _shared(path: Path, planes: Array) -> tuple[Array, Array, Array, Array]:
    """What all images have in common: direction to the right and down, pixel size in mm, rows and columns."""
    for what, columns in {"orientation": slice(3, 9), "pixel size": slice(9, 11), "size": slice(11, 13)}.items():
        if (spread := np.ptp(planes[:, columns], axis=0).max()) > _SAME:
            raise GeometryError(
                f"'{path}': its {len(planes)} images differ in {what} (by {spread:.4g}); they are no single volume. "
                "Put each stack in a folder of its own."
            )
    right, down = planes[0, 3:6], planes[0, 6:9]
    if max(abs(right @ right - 1), abs(down @ down - 1), abs(right @ down)) > 1e-3:
        raise GeometryError(
            f"'{path}': the image directions {planes[0, 3:9].tolist()} are not two axes at right angles."
        )
    return right, down, planes[0, 9:11], planes[0, 11:13]


def _stack(path: Path, positions: Array, normal: Array) -> tuple[Array, Array, list[str]]:
    """The place of the first slice, the way from one slice to the next, and a note where it leaves the normal."""
    count, gaps = len(positions), np.diff(positions @ normal)
    apart = gaps > 1e-3 * gaps.max()
    if not apart.all():
        places = 1 + int(apart.sum())
        raise GeometryError(
            f"'{path}': {count} images lie at {places} positions (several times, echoes or directions, or copies). "
            "Leave one volume in the folder, or convert it with dcm2niix."
        )
    step, origin = np.polyfit(np.arange(count), positions, 1)
    length = float(np.linalg.norm(step))
    off = np.linalg.norm(positions - origin - np.arange(count)[:, None] * step, axis=1).max()
    if off > max(0.01 * length, min(_ROUNDING_MM, 0.1 * length)):
        raise GeometryError(
            f"'{path}': gaps between slices run from {gaps.min():.3f} to {gaps.max():.3f} mm and slices lie up to "
            f"{off:.2f} mm off an even stack. Is a slice missing?"
        )
    tilt = float(np.degrees(np.arccos(min(1.0, step @ normal / length))))
    note = f"the stack leans {tilt:.1f} degrees (tilted gantry); the grid is sheared"
    return origin, step, [note] if tilt > _TILT_DEG else []


def _alone(header: Header, position: Array, normal: Array) -> tuple[Array, Array, list[str]]:
    """The same for one slice, whose extent along the normal is what its header says of it."""
    for name in _THICKNESS:
        if (length := float(header.get(name) or 0)) > 0:
            return position, normal * length, [f"one slice: its extent along k, {length:g} mm, is the {name}"]
    return position, normal, ["one slice of unknown thickness: its extent along k is taken as 1 mm"]


def _slice(path: Path, header: Header) -> Array:
    """The values `(rows, columns)` of one image in their unit."""
    import pydicom

    with _parsing(path):
        full = pydicom.dcmread(header.filename)
        syntax = full.file_meta.TransferSyntaxUID
        if syntax.is_compressed and not pydicom.pixels.get_decoder(syntax).is_available:
            raise DataError(f"'{path}' is compressed ({syntax.name}). Install its decoder: pip install python-gdcm")
        slope, intercept = float(full.get("RescaleSlope") or 1), float(full.get("RescaleIntercept") or 0)
        return _rescaled(_without_unused_bits(full.pixel_array, full.get("BitsStored")), slope, intercept)


def _without_unused_bits(array: Array, bits: int | None) -> Array:
    """The bits above BitsStored may hold anything, old overlays for instance: push them out and extend the sign."""
    if array.dtype.kind not in "iu" or not bits:
        return array
    unused = array.dtype.itemsize * 8 - bits
    return (array << unused) >> unused


def _rescaled(array: Array, slope: float, intercept: float) -> Array:
    if array.dtype.kind not in "iu" or not (slope.is_integer() and intercept.is_integer()):
        return (array * slope + intercept).astype(np.float32)
    values = array.astype(np.int64) * int(slope) + int(intercept)
    lowest = min(int(values.min()), -int(values.max()) - 1)
    return values.astype(np.result_type(np.int16, np.min_scalar_type(lowest)))
