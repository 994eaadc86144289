"""What of a scan a network is shown: a box of the scan's own voxels around what was found there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from pydantic import Field, NonNegativeFloat

from medseg import geometry as geo
from medseg.arrays import Array
from medseg.extent import bounding_box
from medseg.settings import Settings
from medseg.volume import Geometry, Volume, axes_of

Box = tuple[slice, slice, slice]
_ROUNDING = 1e-6  # of a voxel


@dataclass(frozen=True)
class Place:
    """Where a network looks in a labelled case.

    Args:
        box: of the scan's voxels.
        share: of the scan.
        held_ml, missed_ml: of each label, what lies there and what lies elsewhere.
        seconds: that it took to find.
    """

    box: Box
    share: float
    held_ml: tuple[float, ...]
    missed_ml: tuple[float, ...]
    seconds: float


class Region(Settings):
    """How far around what was found a network looks.

    Args:
        margin_mm: on every side.
        least_mm: extent that a box has at least where the scan has it, from left to right, back to front and foot to head: as
            much as a training patch shows, so that patches are filled with tissue.
    """

    margin_mm: float = Field(ge=0)
    least_mm: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (0.0, 0.0, 0.0)

    def __str__(self) -> str:
        least = " x ".join(f"{mm:.3g}" for mm in self.least_mm)
        return f"a margin of {self.margin_mm:g} mm and {least} mm at least"

    def around(self, found: Array, grid: Geometry, scan: Geometry) -> Box:
        """The voxels of a scan to look at.

        Args:
            found: where something was found, booleans `(I, J, K)`.
            grid: on which that lies.
            scan: the grid to be cropped.

        Returns:
            The smallest box along the scan's own axes that holds what was found and the margin; where nothing was found, all
            of the scan.
        """
        box = bounding_box(found)
        if not box[0].stop:
            return whole(scan)
        corners = list(itertools.product(*((s.start - 0.5, s.stop - 0.5) for s in box)))
        edges = scan.to_index(grid.to_world(corners)) + 0.5
        margin = self.margin_mm / np.array(scan.spacing_mm)
        first, stop = np.floor(edges.min(0) - margin + _ROUNDING), np.ceil(edges.max(0) + margin - _ROUNDING)
        least = np.ceil(np.array(self.least_mm)[axes_of(scan.axcodes)] / scan.spacing_mm - _ROUNDING)
        i, j, k = (_widened(*map(int, ends)) for ends in zip(first, stop, least, scan.shape, strict=True))
        return i, j, k


def _widened(first: int, stop: int, least: int, size: int) -> slice:
    """A range as far as it lies on an axis, made longer on both sides where it is too short, as far as the axis goes."""
    first, stop = min(max(first, 0), size - 1), max(min(stop, size), 1)
    length = max(stop - first, min(least, size))
    first = min(max(first - (length - (stop - first)) // 2, 0), size - length)
    return slice(first, first + length)


def whole(grid: Geometry) -> Box:
    """All of a grid."""
    i, j, k = (slice(0, n) for n in grid.shape)
    return i, j, k


def part(grid: Geometry, box: Box) -> Geometry:
    """The grid of a box's voxels."""
    return geo.part(grid, [s.start for s in box], [s.stop - s.start for s in box])


def crop(volume: Volume, box: Box) -> Volume:
    """The voxels of a box; they keep their place in the world."""
    return geo.crop(volume, [s.start for s in box], [s.stop for s in box])
