"""Volumes in millilitres, and how far they are off.

The errors are signed: positive where the prediction is too large. They are NaN where both masks are empty. A 2D mask
counts as 1 mm thick.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg.metrics._grid import Spacing, axes_mm, masks, measure


def volume_ml(mask: Any, *, spacing_mm: Spacing = None) -> float:
    """Volume of a mask in ml, right for sheared grids too; 0 where it is empty.

    Args:
        mask: boolean array or tensor, 2D or 3D.
        spacing_mm: voxel size along each axis in mm, or the axes as columns of a matrix; None is 1 mm.
    """
    (mask,) = masks(mask)
    return float(np.count_nonzero(mask) * measure(axes_mm(spacing_mm, mask.ndim).T) / 1000)


def volume_error_ml(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Volume of the prediction less that of the reference, in ml; NaN where both are empty."""
    predicted, true = (volume_ml(mask, spacing_mm=spacing_mm) for mask in masks(prediction, reference))
    return predicted - true if predicted or true else float("nan")


def relative_volume_error(prediction: Any, reference: Any, *, spacing_mm: Spacing = None) -> float:
    """Volume error as a share of the reference: -1 for a missed structure.

    NaN where the reference is empty: an invented structure has no relative error, only a volume.
    """
    true = volume_ml(reference, spacing_mm=spacing_mm)
    return volume_error_ml(prediction, reference, spacing_mm=spacing_mm) / true if true else float("nan")
