"""RTSTRUCT: structures as closed planar contours in millimetres, which have no grid before a series gives them one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError, GeometryError
from medseg.io import _common
from medseg.io._pile import Pile, labels
from medseg.io._references import References
from medseg.io.rtstruct import _contours
from medseg.io.rtstruct._contours import Drawn, in_frames, structures
from medseg.io.rtstruct._fill import fill, slices
from medseg.io.rtstruct._write import write as write
from medseg.plural import counted
from medseg.volume import Geometry, Kind, Volume

Array = npt.NDArray[Any]
Header = Any

SUFFIXES = (".rtstruct.dcm",)
OPTIONS = ("on", "frames")
CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage
_FLAT = 0.1  # slices: how far the points of a contour may lie from its plane


def matches(path: Path) -> bool:
    """Whether this is a file that holds an RTSTRUCT."""
    return _common.sop_class(path) == CLASS


def read(
    path: Path, kind: Kind = "labels", *, on: Geometry | None = None, frames: frozenset[str] | None = None
) -> Volume:
    """Fill the contours of all structures on the grid of a series, by the place of its voxels' centres alone.

    A centre belongs to a structure where it lies inside of an odd number of its contours in that slice (`_fill.fill`); which
    contours a slice shows is said in `_fill.slices`. A contour that comes twice counts once. Voxels have the number of their
    structure, or structures are channels where they overlap; `meta["labels"]` says which is which, `meta["names"]` how the file
    calls each: there names may come twice.

    Args:
        path: of the file.
        kind: taken as "labels" whatever it says.
        on: the grid, without which contours have no voxels.
        frames: FrameOfReferenceUIDs of the grid; structures in others are left out. None takes all.

    Raises:
        DataError: no grid is given; or the file is damaged, or holds points and open lines alone.
        GeometryError: contours run across the slices, or all lie outside of the grid.
    """
    if on is None:
        raise DataError(
            f"'{path}' holds contours, which become a mask on a grid alone: medseg.read(PATH, 'labels', on=GRID), where GRID is "
            "medseg.read(SERIES).geometry."
        )
    with _common.parsing(path):
        header = _header(path)
        every = structures(header)
        here = every if frames is None else in_frames(every, frames, header)
        drawn = _filled_ones(path, here)
        contours = [on.to_index(points * (-1, -1, 1)) for item in drawn for points in item.contours]
        of = np.repeat(np.arange(1, len(drawn) + 1), [len(item.contours) for item in drawn])
        heights = _heights(path, contours)
        shown = [
            [n for n in positions if _reaches(contours[n], on)]
            for positions in slices(heights, on.shape[2], _gap_mm(on))
        ]
        pile = Pile(on.shape, len(drawn))
        for k, positions in enumerate(shown):
            for number in dict.fromkeys(of[positions].tolist()):
                polygons = [contours[n][:, :2] for n in positions if of[n] == number]
                pile.add(number, k, fill(polygons, (on.shape[1], on.shape[0])))
        found = labels([item[:3] for item in drawn], overlap=len(pile.array) > 1)
        notes = (*_placing(path, heights, shown), *_oddities(every, here, pile))
    names = tuple(item.name for item in drawn)
    meta = {
        "modality": "RTSTRUCT",
        "labels": found,
        "names": names,
        "notes": notes,
        "stored_dtype": pile.array.dtype.name,
    }
    return Volume(pile.array, on, "labels", meta)


def read_geometry(path: Path) -> Geometry:
    """Refuse: contours have no grid."""
    return read(path).geometry


def references(path: Path) -> tuple[References, ...]:
    """The images that the contours say they were drawn on, by frame of reference."""
    with _common.parsing(path):
        return _contours.references(_header(path))


def _header(path: Path) -> Header:
    import pydicom

    return pydicom.dcmread(path)


def _filled_ones(path: Path, here: Sequence[Drawn]) -> Sequence[Drawn]:
    """The structures with closed contours; all of them where nothing at all is drawn, for then they are empty.

    Raises:
        DataError: there are none.
    """
    drawn = [item for item in here if item.contours]
    if not drawn and (not here or any(item.open for item in here)):
        raise DataError(f"'{path}' holds no closed contours.")
    return drawn or here


def _reaches(points: Array, grid: Geometry) -> bool:
    """Whether a contour in voxels `(n, 3)` can hold a voxel's centre of its slice."""
    return bool((points.max(axis=0)[:2] >= 0).all() and (points.min(axis=0)[:2] <= np.array(grid.shape[:2]) - 1).all())


def _heights(path: Path, contours: Sequence[Array]) -> Array:
    """The plane of each contour `(n, 3)` in voxels, counted in slices.

    Raises:
        GeometryError: one lies in no plane of a slice.
    """
    if (across := max((float(np.ptp(points[:, 2])) for points in contours), default=0.0)) > 2 * _FLAT:
        raise GeometryError(
            f"'{path}': contours run across {across:.2g} slices. They were drawn on planes of another direction; give the "
            "series that they were drawn on."
        )
    return np.array([points[:, 2].mean() for points in contours])


def _gap_mm(grid: Geometry) -> float:
    i, j, k = grid.affine[:3, :3].T
    normal = np.cross(i, j)
    return abs(float(k @ normal)) / float(np.linalg.norm(normal))


def _placing(path: Path, heights: Array, shown: Sequence[Sequence[int]]) -> Iterator[str]:
    """What is odd about the places of contours, in numbers.

    Raises:
        GeometryError: no contour is in any slice.
    """
    unused = len(heights) - len({n for positions in shown for n in positions})
    if unused and unused == len(heights):
        raise GeometryError(
            f"'{path}': all contours lie outside of the scan (slices {heights.min():.1f} to {heights.max():.1f} of its "
            f"{len(shown)}, or beside them). Do they belong to another one?"
        )
    if unused:
        yield f"{unused} of {len(heights)} contours lie outside of the scan, and were left out"
    used = np.array([k for k, positions in enumerate(shown) if positions])
    if len(used) > 2 and (every := math.gcd(*np.diff(used).tolist())) > 1:
        yield f"contours were drawn in one of {every} slices alone; the slices between them are empty"
    if np.abs(heights - np.rint(heights)).max(initial=0) > _FLAT:
        yield "contours were drawn on other slices than the scan's; each slice takes the nearest ones"


def _oddities(every: Sequence[Drawn], here: Sequence[Drawn], pile: Pile) -> Iterator[str]:
    """What is odd about the structures of an object and those of them that are in the scan's frame, in numbers."""
    if opened := sum(item.open for item in here):
        yield f"{counted(opened, 'point or open line is no structure', 'points and open lines are no structures')}: left out"
    if twice := sum(item.twice for item in here):
        yield f"{counted(twice, 'contour comes twice, and counts', 'contours come twice, and count')} once"
    if away := len(every) - len(here):
        yield f"{away} of {len(every)} structures lie in another frame of reference, and were left out"
    elif (several := len({item.frame for item in here if item.frame})) > 1:
        yield f"structures lie in {several} frames of reference; all were placed as if in that of the scan"
    if pile.overlap:
        yield f"structures overlap in {counted(pile.overlap, 'voxel')}"
