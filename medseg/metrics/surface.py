"""How far apart two surfaces lie, in mm.

A surface is made of elements, in one of two ways. `areas`, the default: at every corner of a voxel whose surroundings are
neither all inside nor all outside, with the area that marching cubes gives it there (in 2D: the length), as in the package
surface-distance and in Nikolov et al., *Clinically applicable segmentation of head and neck anatomy for radiotherapy* (JMIR
2021, 23(7):e26151). `voxels`: at the centre of every voxel of the mask with a neighbour across a face outside, each counting
the same, as in MONAI and medpy. The first is the surface that one sees; the second lies half a voxel inside it, counts
slanting surfaces less, and gives other numbers.

The empty case: NaN where both masks are empty. Where one is, a structure was missed or invented and counts as the worst:
the distances are the diagonal of the image (or what the caller chose), the surface Dice is 0. A structure of one voxel has
a surface around it (as `areas`), or is its own surface. A volume of one slice is measured within its plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from medseg import distance
from medseg.errors import ConfigError
from medseg.extent import bounding_box
from medseg.metrics._grid import Array, Spacing, axes_mm, flat, masks, number
from medseg.metrics._surfels import areas_within, centres_within, surface_of_codes
from medseg.volume import diagonal

Elements = Literal["areas", "voxels"]

# Distances are single precision and a tolerance is often a whole number of voxels: equal must count as within, whether voxels
# are micrometres or millimetres large.
_ROUNDING, _ROUNDING_MM = 1e-6, 1e-9


@dataclass(frozen=True)
class SurfaceDistances:
    """Elements of two surfaces: distance to the nearest of the other surface (infinite where there is none), and area.

    Args:
        prediction_mm: one distance an element of the prediction, ascending.
        prediction_area: areas in mm2 (in 2D: lengths in mm) in the same order; 1 for voxels.
        reference_mm: one distance an element of the reference, ascending.
        reference_area: their areas.
        diagonal_mm: what stands for the distance to a surface that is not there.
        elements: what they are.
    """

    prediction_mm: Array
    prediction_area: Array
    reference_mm: Array
    reference_area: Array
    diagonal_mm: float
    elements: Elements = "areas"

    @classmethod
    def between(
        cls,
        prediction: Any,
        reference: Any,
        spacing_mm: Spacing = None,
        diagonal_mm: float | None = None,
        elements: Elements = "areas",
    ) -> Self:
        """Measure two masks; the arguments are those of `hausdorff`."""
        if elements not in get_args(Elements):
            raise ConfigError(f"elements of a surface are {' or '.join(get_args(Elements))}, got '{elements}'")
        prediction, reference = masks(prediction, reference)
        axes = axes_mm(spacing_mm, prediction.ndim)
        if diagonal_mm is None:
            diagonal_mm = diagonal(prediction.shape, axes)
        number(diagonal_mm, lambda mm: mm > 0, "diagonal_mm, what stands for a missed surface, is above 0 mm")
        axes, prediction, reference = flat(axes, prediction, reference)
        box = bounding_box(prediction | reference)
        if elements == "areas":
            areas = surface_of_codes(axes)
            (at_p, area_p), (at_r, area_r) = (areas_within(mask[box], areas) for mask in (prediction, reference))
        else:
            (at_p, area_p), (at_r, area_r) = (centres_within(mask[box]) for mask in (prediction, reference))
        mm_p, mm_r = distance.between(at_p, at_r, axes), distance.between(at_r, at_p, axes)
        by_p, by_r = np.argsort(mm_p), np.argsort(mm_r)
        return cls(mm_p[by_p], area_p[by_p], mm_r[by_r], area_r[by_r], diagonal_mm, elements)

    def hausdorff(self, percentile: float = 100.0) -> float:
        """See the function of that name."""
        number(percentile, lambda part: 1 < part <= 100, "percentile lies above 1 and up to 100 (95 is HD95)")
        found = [self._percentile(mm, area, percentile) for mm, area in self._surfaces()]
        return self._bounded(max(found)) if found else float("nan")

    def assd(self) -> float:
        """See the function of that name."""
        total = self.prediction_area.sum() + self.reference_area.sum()
        far = self.prediction_mm @ self.prediction_area + self.reference_mm @ self.reference_area
        return self._bounded(far / total) if total else float("nan")

    def masd(self) -> float:
        """See the function of that name."""
        means = [mm @ area / area.sum() for mm, area in self._surfaces()]
        return self._bounded(np.mean(means)) if means else float("nan")

    def nsd(self, tolerance_mm: float = 1.0) -> float:
        """See the function of that name."""
        # without an end it would forgive a missed structure
        number(tolerance_mm, lambda mm: 0 <= mm < float("inf"), "tolerance_mm is a distance of 0 mm or more")
        total = self.prediction_area.sum() + self.reference_area.sum()
        within = tolerance_mm * (1 + _ROUNDING) + _ROUNDING_MM
        near = self.prediction_area[self.prediction_mm <= within].sum()
        near += self.reference_area[self.reference_mm <= within].sum()
        return float(near / total) if total else float("nan")

    def _surfaces(self) -> list[tuple[Array, Array]]:
        """Distances and areas of those surfaces that there are."""
        both = ((self.prediction_mm, self.prediction_area), (self.reference_mm, self.reference_area))
        return [(mm, area) for mm, area in both if len(mm)]

    def _bounded(self, mm: float) -> float:
        return float(min(mm, self.diagonal_mm))

    def _percentile(self, mm: Array, area: Array, percentile: float) -> float:
        """The distance within which so much of the area lies; of voxels interpolated, as NumPy and the peers do."""
        if self.elements == "voxels":
            return float(np.percentile(mm, percentile)) if np.isfinite(mm[-1]) else float("inf")
        reached = int(np.searchsorted(np.cumsum(area) / area.sum(), percentile / 100))
        return float(mm[min(reached, len(mm) - 1)])


def hausdorff(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    percentile: float = 100.0,
    diagonal_mm: float | None = None,
    elements: Elements = "areas",
) -> float:
    """Hausdorff distance, or its robust form: the larger of the two directions' percentiles, in mm.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: voxel size along each axis, or the axes as columns of a matrix (they may be sheared); None is 1 mm.
        percentile: above 1, up to 100; 100 is the Hausdorff distance itself, 95 is HD95.
        diagonal_mm: the result where one mask is empty, and the most that any is; None is the diagonal of the array. It may be
            infinite.
        elements: "areas" or "voxels": see the top of this module.

    Returns:
        0 or more; NaN where both masks are empty.

    Raises:
        ConfigError: another percentile, a diagonal of 0 mm or less, or no such elements.
    """
    return SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm, elements).hausdorff(percentile)


def assd(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    diagonal_mm: float | None = None,
    elements: Elements = "areas",
) -> float:
    """Average symmetric surface distance in mm: the mean over both surfaces together; arguments as in `hausdorff`."""
    return SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm, elements).assd()


def masd(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    diagonal_mm: float | None = None,
    elements: Elements = "areas",
) -> float:
    """Mean average surface distance in mm: the mean of both directions' means, so that a small surface weighs as much as a
    large one; arguments as in `hausdorff`.
    """
    return SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm, elements).masd()


def nsd(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    tolerance_mm: float = 1.0,
    elements: Elements = "areas",
) -> float:
    """Normalised surface Dice: the share of both surfaces that lies within a tolerance of the other one, 0 to 1.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: as in `hausdorff`.
        tolerance_mm: the distance that two experts may differ by; equal counts as within.
        elements: as in `hausdorff`.
    """
    return SurfaceDistances.between(prediction, reference, spacing_mm, elements=elements).nsd(tolerance_mm)
