"""Contours on the grid of a series: which structures follow its slices, and which slices show which contours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medseg.arrays import Array
from medseg.errors import GeometryError
from medseg.io._common import LPS_TO_RAS
from medseg.io.rtstruct._contours import Drawn
from medseg.io.rtstruct._fill import slices
from medseg.volume import Geometry

_FLAT = 0.1  # slices: how far the points of a contour may lie from its plane


class Placed(NamedTuple):
    """The contours of structures on a grid.

    Args:
        structures: those that follow the slices; their contours are in voxels.
        across: names of the others.
        contours: of all structures, `(n, 3)` in voxels.
        of: the number of the structure of each contour, from 1 on.
        heights: the plane of each contour, in slices.
        shown: for each slice the positions of the contours that it shows.
    """

    structures: Sequence[Drawn]
    across: tuple[str, ...]
    contours: list[Array]
    of: Array
    heights: Array
    shown: list[list[int]]


def placed(path: Path, drawn: Sequence[Drawn], grid: Geometry) -> Placed:
    """Bring structures to a grid. One of which any contour runs across the slices is left out whole: a part of it would be wrong.

    Contours that were drawn on several series are placed series by series, for each has its own distance of planes.

    Raises:
        GeometryError: all run across the slices, or lie outside of the grid.
    """
    moved = [item._replace(contours=[_in_voxels(points, grid) for points in item.contours]) for item in drawn]
    leaning = {n: most for n, item in enumerate(moved) if (most := _across(item)) > 2 * _FLAT}
    flat = [item for n, item in enumerate(moved) if n not in leaning]
    if leaning and not flat:
        raise GeometryError(
            f"'{path}': contours run across {max(leaning.values()):.2g} slices. They were drawn on planes of another direction; "
            "give the series that they were drawn on."
        )
    contours = [points for item in flat for points in item.contours]
    counts = [len(item.contours) for item in flat]
    heights = np.array([points[:, 2].mean() for points in contours])
    shown = _shown(contours, heights, np.repeat([item.series for item in flat], counts), grid)
    if contours and not any(shown):
        raise GeometryError(
            f"'{path}': all contours lie outside of the scan (slices {heights.min():.1f} to {heights.max():.1f} of its "
            f"{len(shown)}, or beside them). Do they belong to another one?"
        )
    across = tuple(moved[n].name for n in leaning)
    return Placed(flat, across, contours, np.repeat(np.arange(1, len(flat) + 1), counts), heights, shown)


def notes(found: Placed) -> Iterator[str]:
    """What is odd about the places of contours, in numbers."""
    if found.across:
        names = ", ".join(f"'{name}'" for name in found.across)
        yield f"drawn across the slices, on planes of another direction, and left out: {names}"
    if unused := len(found.contours) - len({n for positions in found.shown for n in positions}):
        yield f"{unused} of {len(found.contours)} contours lie outside of the scan, and were left out"
    used = np.array([k for k, positions in enumerate(found.shown) if positions])
    if len(used) > 2 and (every := math.gcd(*np.diff(used).tolist())) > 1:
        yield f"contours were drawn in one of {every} slices alone; the slices between them are empty"
    if np.abs(found.heights - np.rint(found.heights)).max(initial=0) > _FLAT:
        yield "contours were drawn on other slices than the scan's; each slice takes the nearest ones"


def _in_voxels(points_lps: Array, grid: Geometry) -> Array:
    return grid.to_index(points_lps @ LPS_TO_RAS[:3, :3])


def _across(item: Drawn) -> float:
    """The most slices that a contour of a structure runs across."""
    return max((float(np.ptp(points[:, 2])) for points in item.contours), default=0.0)


def _shown(contours: Sequence[Array], heights: Array, series: Array, grid: Geometry) -> list[list[int]]:
    """For each slice the positions of the contours that it shows."""
    shown: list[list[int]] = [[] for _ in range(grid.shape[2])]
    reaching = np.array([_reaches(points, grid) for points in contours])
    for name in dict.fromkeys(series.tolist()):
        its = np.flatnonzero(series == name)
        for k, positions in enumerate(slices(heights[its], grid.shape[2], _gap_mm(grid))):
            shown[k] += [n for n in its[positions].tolist() if reaching[n]]
    return shown


def _reaches(points: Array, grid: Geometry) -> bool:
    """Whether a contour in voxels `(n, 3)` can hold a voxel's centre of its slice."""
    return bool((points.max(axis=0)[:2] >= 0).all() and (points.min(axis=0)[:2] <= np.array(grid.shape[:2]) - 1).all())


def _gap_mm(grid: Geometry) -> float:
    i, j, k = grid.affine[:3, :3].T
    normal = np.cross(i, j)
    return abs(float(k @ normal)) / float(np.linalg.norm(normal))
