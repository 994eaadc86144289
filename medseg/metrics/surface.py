"""How far apart two surfaces lie, in mm.

A surface is made of elements: at every corner of a voxel whose surroundings are neither all inside nor all outside, with
the area that marching cubes gives it there (in 2D: the length). Distances run between such corners, and every mean,
percentile and share is weighted by area, as in the package surface-distance and in Nikolov et al., *Clinically applicable
segmentation of head and neck anatomy for radiotherapy* (JMIR 2021, 23(7):e26151).

The empty case: NaN where both masks are empty. Where one is, a structure was missed or invented and counts as the worst:
the distances are the diagonal of the image, the surface Dice is 0. A volume of one slice is measured within its plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from medseg import distance
from medseg.extent import bounding_box
from medseg.metrics._grid import Array, Spacing, axes_mm, check
from medseg.metrics._surfels import surface_of_codes
from medseg.volume import diagonal

# Distances are single precision and a tolerance is often a whole number of voxels: equal must count as within.
_ROUNDING_MM = 1e-4


@dataclass(frozen=True)
class SurfaceDistances:
    """Elements of two surfaces: distance to the nearest of the other surface (infinite where there is none), and area.

    Args:
        prediction_mm: one distance an element of the prediction, ascending.
        prediction_area: areas in mm2 (in 2D: lengths in mm) in the same order.
        reference_mm: one distance an element of the reference, ascending.
        reference_area: their areas.
        diagonal_mm: what stands for the distance to a surface that is not there.
    """

    prediction_mm: Array
    prediction_area: Array
    reference_mm: Array
    reference_area: Array
    diagonal_mm: float

    @classmethod
    def between(
        cls, prediction: Array, reference: Array, spacing_mm: Spacing = None, diagonal_mm: float | None = None
    ) -> Self:
        """Measure two masks; the arguments are those of `hausdorff`."""
        check(prediction, reference)
        axes = axes_mm(spacing_mm, prediction.ndim)
        diagonal_mm = diagonal(prediction.shape, axes) if diagonal_mm is None else diagonal_mm
        if prediction.ndim == 3 and prediction.shape.count(1) == 1:
            flat = prediction.shape.index(1)
            prediction, reference, axes = (
                prediction.squeeze(flat),
                reference.squeeze(flat),
                np.delete(axes, flat, axis=1),
            )
        box = bounding_box(prediction | reference)
        areas = surface_of_codes(axes)
        (at_p, area_p), (at_r, area_r) = (_elements(mask[box], areas) for mask in (prediction, reference))
        mm_p, mm_r = distance.between(at_p, at_r, axes), distance.between(at_r, at_p, axes)
        by_p, by_r = np.argsort(mm_p), np.argsort(mm_r)
        return cls(mm_p[by_p], area_p[by_p], mm_r[by_r], area_r[by_r], diagonal_mm)

    def hausdorff(self, percentile: float = 95.0) -> float:
        """See the function of that name."""
        pairs = ((self.prediction_mm, self.prediction_area), (self.reference_mm, self.reference_area))
        found = [_percentile(mm, area, percentile) for mm, area in pairs if len(mm)]
        return min(max(found), self.diagonal_mm) if found else float("nan")

    def assd(self) -> float:
        """See the function of that name."""
        total = self.prediction_area.sum() + self.reference_area.sum()
        far = self.prediction_mm @ self.prediction_area + self.reference_mm @ self.reference_area
        return float(min(far / total, self.diagonal_mm)) if total else float("nan")

    def nsd(self, tolerance_mm: float = 1.0) -> float:
        """See the function of that name."""
        total = self.prediction_area.sum() + self.reference_area.sum()
        near = self.prediction_area[self.prediction_mm <= tolerance_mm + _ROUNDING_MM].sum()
        near += self.reference_area[self.reference_mm <= tolerance_mm + _ROUNDING_MM].sum()
        return float(near / total) if total else float("nan")


def hausdorff(
    prediction: Array,
    reference: Array,
    *,
    spacing_mm: Spacing = None,
    percentile: float = 95.0,
    diagonal_mm: float | None = None,
) -> float:
    """Hausdorff distance, or its robust form: the larger of the two directions' percentiles, in mm.

    Args:
        prediction: boolean array, 2D or 3D.
        reference: boolean array of the same shape.
        spacing_mm: voxel size along each axis, or the axes as columns of a matrix (they may be sheared); None is 1 mm.
        percentile: 0 to 100; 100 is the Hausdorff distance itself, 95 is HD95.
        diagonal_mm: the result where one mask is empty; None is the diagonal of the array.

    Returns:
        0 or more; NaN where both masks are empty.
    """
    return SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm).hausdorff(percentile)


def assd(prediction: Array, reference: Array, *, spacing_mm: Spacing = None, diagonal_mm: float | None = None) -> float:
    """Average symmetric surface distance in mm: the mean over both surfaces; arguments as in `hausdorff`."""
    return SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm).assd()


def nsd(prediction: Array, reference: Array, *, spacing_mm: Spacing = None, tolerance_mm: float = 1.0) -> float:
    """Normalised surface Dice: the share of both surfaces that lies within a tolerance of the other one, 0 to 1.

    Args:
        prediction: boolean array, 2D or 3D.
        reference: boolean array of the same shape.
        spacing_mm: as in `hausdorff`.
        tolerance_mm: the distance that two experts may differ by; equal counts as within.
    """
    return SurfaceDistances.between(prediction, reference, spacing_mm).nsd(tolerance_mm)


def _elements(mask: Array, areas: Array) -> tuple[Array, Array]:
    """Where a surface passes, as a boolean array one larger than the mask, and the areas there in C order."""
    codes = np.pad(np.ascontiguousarray(mask), 1).view(np.uint8)
    for axis in reversed(range(mask.ndim)):  # codes of two neighbours make one of twice as many corners
        before, after = (codes[(slice(None),) * axis + (part,)] for part in (slice(-1), slice(1, None)))
        codes = before | after << np.uint8(2 ** (mask.ndim - 1 - axis))
    passes = codes - np.uint8(1) < len(areas) - 2  # neither all outside nor all inside
    return passes, areas[codes[passes]]


def _percentile(mm: Array, area: Array, percentile: float) -> float:
    reached = int(np.searchsorted(np.cumsum(area) / area.sum(), percentile / 100))
    return float(mm[min(reached, len(mm) - 1)])
