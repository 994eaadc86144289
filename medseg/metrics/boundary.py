"""Overlap of the rims of two masks, which tells errors of the outline in structures so large that their Dice no longer does.

The empty case: NaN where both masks are empty, 0 where one is. A structure of one voxel is all rim.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg import distance
from medseg.extent import bounding_box
from medseg.metrics._grid import Array, Spacing, axes_mm, flat, masks, number, thin_axis
from medseg.volume import diagonal

_SHARE = 0.02  # of the diagonal: the paper's


def boundary_iou(
    prediction: Any, reference: Any, *, spacing_mm: Spacing = None, distance_mm: float | None = None
) -> float:
    """Intersection over union of the voxels of both masks that lie within a distance of their own outside.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: voxel size along each axis, or the axes as columns of a matrix (they may be sheared); None is 1 mm.
        distance_mm: from a voxel's centre to the nearest one outside; the outside begins at the border of the array, too. None
            is the paper's choice, 2 % of the array's diagonal, and at least the longest edge of a voxel.

    Returns:
        0 to 1; NaN where both masks are empty.

    Reference: Cheng et al., Boundary IoU (CVPR 2021), equation 3. The paper erodes by squares of pixels; here the distance is
        Euclidean, in mm.
    """
    prediction, reference = masks(prediction, reference)
    axes = axes_mm(spacing_mm, prediction.ndim)
    distance_mm = paper_mm(prediction.shape, axes) if distance_mm is None else distance_mm
    distance_mm = number(distance_mm, lambda mm: mm > 0, "distance_mm, the width of the rims, is above 0 mm")
    axes, prediction, reference = flat(axes, prediction, reference)
    box = bounding_box(prediction | reference)
    here, there = (_rim(np.pad(mask[box], 1), axes, distance_mm) for mask in (prediction, reference))
    either = np.count_nonzero(here | there)
    return float(np.count_nonzero(here & there) / either) if either else float("nan")


def paper_mm(shape: tuple[int, ...], axes: Array) -> float:
    """The paper's distance on a grid with such axes in mm: 2 % of its diagonal, and at least the longest edge of a voxel; of a
    single slice, within its plane."""
    thin = thin_axis(shape)
    if thin is not None:
        shape, axes = (*shape[:thin], *shape[thin + 1 :]), np.delete(axes, thin, axis=1)
    return max(_SHARE * diagonal(shape, axes), *np.linalg.norm(axes, axis=0).tolist())


def _rim(mask: Array, axes: Array, distance_mm: float) -> Array:
    rim = np.zeros_like(mask)
    rim[mask] = distance.between(mask, ~mask, axes) <= distance_mm * (1 + 1e-6)  # single precision: equal is within
    return rim
