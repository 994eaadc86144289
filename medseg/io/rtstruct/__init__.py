"""RTSTRUCT: structures as closed planar contours in millimetres, which have no grid before a series gives them one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, GeometryError
from medseg.io import _common
from medseg.io._pile import Pile, labels
from medseg.io._source import References
from medseg.io.rtstruct._fill import fill, slices
from medseg.io.rtstruct._write import write as write
from medseg.volume import Geometry, Kind, Volume

Array = npt.NDArray[Any]
Header = Any

SUFFIXES = (".rtstruct.dcm",)
OPTIONS = ("on",)
CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_CONTOUR_DATA = 0x30060050
_FARTHEST_MM = 1e5
_FLAT = 0.1  # slices: how far the points of a contour may lie from its plane


class _Drawn(NamedTuple):
    """One structure as it was drawn: its contours `(n, 3)` in LPS mm, and how many were set aside."""

    name: str
    colour: tuple[int, int, int] | None
    code: str | None
    contours: list[Array]
    open: int
    twice: int


def matches(path: Path) -> bool:
    """Whether this is a file that holds an RTSTRUCT."""
    return _common.sop_class(path) == CLASS


def read(path: Path, kind: Kind = "labels", *, on: Geometry | None = None) -> Volume:
    """Fill the contours of all structures on the grid of a series, by the place of its voxels' centres alone.

    A centre belongs to a structure where it lies inside of an odd number of its contours in that slice (`_fill.fill`); which
    contours a slice shows is said in `_fill.slices`. A contour that comes twice counts once. Voxels have the number of their
    structure, or structures are channels where they overlap; `meta["labels"]` says which is which.

    Args:
        path: of the file.
        kind: taken as "labels" whatever it says.
        on: the grid, without which contours have no voxels.

    Raises:
        DataError: no grid is given; or the file is damaged, or without any closed contour.
        GeometryError: contours run across the slices, or all lie outside of the grid.
    """
    if on is None:
        raise DataError(
            f"'{path}' holds contours, which become a mask on a grid alone: medseg.read(PATH, 'labels', on=GRID), where GRID is "
            "medseg.read(SERIES).geometry."
        )
    with _common.parsing(path):
        structures = [drawn for drawn in _structures(_header(path)) if drawn.contours]
        if not structures:
            raise DataError(f"'{path}' holds no closed contours.")
        every = [on.to_index(points * (-1, -1, 1)) for drawn in structures for points in drawn.contours]
        of = np.repeat(np.arange(1, len(structures) + 1), [len(drawn.contours) for drawn in structures])
        heights = _heights(path, every)
        shown = slices(heights, on.shape[2], _gap_mm(on))
        pile = Pile(on.shape, len(structures))
        for k, positions in enumerate(shown):
            for number in dict.fromkeys(of[positions].tolist()):
                here = [every[n][:, :2] for n in positions if of[n] == number]
                pile.add(number, k, fill(here, (on.shape[1], on.shape[0])))
        found = labels([drawn[:3] for drawn in structures], overlap=len(pile.array) > 1)
        notes = _notes(path, structures, heights, shown, pile)
    meta = {"modality": "RTSTRUCT", "labels": found, "notes": notes, "stored_dtype": pile.array.dtype.name}
    return Volume(pile.array, on, "labels", meta)


def read_geometry(path: Path) -> Geometry:
    """Refuse: contours have no grid."""
    return read(path).geometry


def references(path: Path) -> References:
    """The images that the contours say they were drawn on."""
    with _common.parsing(path):
        header = _header(path)
        frames = header.get("ReferencedFrameOfReferenceSequence", ())
        studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence", ())]
        series = [item for study in studies for item in study.get("RTReferencedSeriesSequence", ())]
        images = [image for item in series for image in item.get("ContourImageSequence", ())]
        frame = next((str(item.FrameOfReferenceUID) for item in frames if "FrameOfReferenceUID" in item), "")
        instances = frozenset(str(image.ReferencedSOPInstanceUID) for image in images)
        own = str(header.get("SeriesInstanceUID", ""))
        return References(tuple(str(item.SeriesInstanceUID) for item in series), instances, frame, own)


def _header(path: Path) -> Header:
    import pydicom

    return pydicom.dcmread(path)


def _structures(header: Header) -> list[_Drawn]:
    names = {int(item.ROINumber): str(item.get("ROIName", "")).strip() for item in header.StructureSetROISequence}
    codes = {
        int(item.ReferencedROINumber): item.RTROIIdentificationCodeSequence[0]
        for item in header.get("RTROIObservationsSequence", ())
        if item.get("RTROIIdentificationCodeSequence")
    }
    found = []
    for item in header.get("ROIContourSequence", ()):
        number, colour = int(item.ReferencedROINumber), item.get("ROIDisplayColor")
        contours = item.get("ContourSequence") or ()
        closed = [_points(contour) for contour in contours if contour.get("ContourGeometricType") in _CLOSED]
        several = [points for points in closed if len(points) > 2]
        unique = list({points.tobytes(): points for points in several}.values())
        code = codes.get(number)
        found.append(
            _Drawn(
                names.get(number, ""),
                (int(colour[0]), int(colour[1]), int(colour[2])) if colour else None,
                f"{code.CodingSchemeDesignator}:{code.CodeValue}" if code and "CodeValue" in code else None,
                unique,
                len(contours) - len(several),
                len(several) - len(unique),
            )
        )
    return found


def _points(contour: Header) -> Array:
    """Points `(n, 3)`; from the text itself, for a structure may have a million numbers."""
    raw = contour.get_item(_CONTOUR_DATA).value or b""
    text = raw.decode("ascii").split("\\") if isinstance(raw, bytes) else raw
    points = np.array([float(number) for number in text]).reshape(-1, 3)
    if not (np.abs(points) < _FARTHEST_MM).all():  # nor not-a-number
        raise ValueError("a contour leaves the room")
    return points


def _heights(path: Path, contours: Sequence[Array]) -> Array:
    """The plane of each contour `(n, 3)` in voxels, counted in slices.

    Raises:
        GeometryError: one lies in no plane of a slice.
    """
    if (across := max(float(np.ptp(points[:, 2])) for points in contours)) > 2 * _FLAT:
        raise GeometryError(
            f"'{path}': contours run across {across:.2g} slices. They were drawn on planes of another direction; give the "
            "series that they were drawn on."
        )
    return np.array([points[:, 2].mean() for points in contours])


def _gap_mm(grid: Geometry) -> float:
    i, j, k = grid.affine[:3, :3].T
    normal = np.cross(i, j)
    return abs(float(k @ normal)) / float(np.linalg.norm(normal))


def _notes(
    path: Path, structures: Sequence[_Drawn], heights: Array, shown: Sequence[Sequence[int]], pile: Pile
) -> tuple[str, ...]:
    """What was odd, in numbers.

    Raises:
        GeometryError: no contour is in any slice.
    """
    unused = len(heights) - len({n for positions in shown for n in positions})
    if unused == len(heights):
        raise GeometryError(
            f"'{path}': all contours lie outside of the scan (slices {heights.min():.1f} to {heights.max():.1f} of its "
            f"{len(shown)}). Do they belong to another one?"
        )
    notes = (
        [f"{unused} of {len(heights)} contours lie outside of the scan's slices, and were left out"] if unused else []
    )
    used = np.array([k for k, positions in enumerate(shown) if positions])
    if len(used) > 2 and (every := math.gcd(*np.diff(used).tolist())) > 1:
        notes.append(f"contours were drawn in one of {every} slices alone; the slices between them are empty")
    if np.abs(heights - np.rint(heights)).max() > _FLAT:
        notes.append("contours were drawn on other slices than the scan's; each slice takes the nearest ones")
    if opened := sum(drawn.open for drawn in structures):
        notes.append(f"{opened} points and open lines are no structures, and were left out")
    if twice := sum(drawn.twice for drawn in structures):
        notes.append(f"{twice} contours come twice, and count once")
    if pile.overlap:
        notes.append(f"structures overlap in {pile.overlap} voxels")
    return tuple(notes)
