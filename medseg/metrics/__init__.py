"""How good a mask is: functions of boolean arrays and the voxel size in mm.

Each of `overlap`, `surface` and `volume` decides the empty case at its top; `scores` gives all of them in one pass.
"""

from __future__ import annotations

from typing import Any

from medseg.extent import bounding_box
from medseg.metrics._grid import Spacing, axes_mm, masks
from medseg.metrics.boundary import boundary_iou
from medseg.metrics.confusion import (
    confusion_matrix,
    frequency_weighted_iou,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
)
from medseg.metrics.overlap import (
    Overlap,
    accuracy,
    balanced_accuracy,
    dice,
    iou,
    kappa,
    mcc,
    precision,
    recall,
    specificity,
    volumetric_similarity,
)
from medseg.metrics.surface import SurfaceDistances, assd, hausdorff, masd, nsd
from medseg.metrics.volume import relative_volume_error, volume_error_ml, volume_ml
from medseg.volume import diagonal

__all__ = (
    "NAMES",
    "accuracy",
    "assd",
    "balanced_accuracy",
    "boundary_iou",
    "confusion_matrix",
    "dice",
    "frequency_weighted_iou",
    "hausdorff",
    "iou",
    "kappa",
    "masd",
    "mcc",
    "mean_iou",
    "mean_pixel_accuracy",
    "nsd",
    "pixel_accuracy",
    "precision",
    "recall",
    "relative_volume_error",
    "scores",
    "specificity",
    "volume_error_ml",
    "volume_ml",
    "volumetric_similarity",
)
NAMES = (
    *("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd"),
    *("volume_ml", "reference_ml", "volume_error_ml", "relative_volume_error"),
)


def scores(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    tolerance_mm: float = 1.0,
    diagonal_mm: float | None = None,
) -> dict[str, float]:
    """All metrics of one structure; cropped first, and each surface found once.

    Args:
        prediction: boolean array, 2D or 3D.
        reference: boolean array of the same shape.
        spacing_mm: voxel size along each axis, or the axes as columns of a matrix (they may be sheared); None is 1 mm.
        tolerance_mm: the distance of surfaces that `nsd` forgives.
        diagonal_mm: the distance that stands for a surface missed or invented; None is the diagonal of the array.

    Returns:
        `NAMES` to values. Where both masks are empty both volumes are 0 and all else is NaN.
    """
    prediction, reference = masks(prediction, reference)
    if diagonal_mm is None:
        diagonal_mm = diagonal(prediction.shape, axes_mm(spacing_mm, prediction.ndim))
    # With its margin a structure that fills one slice of many stays a volume: only an image of one slice is flat.
    voxels, box = prediction.size, bounding_box(prediction | reference, margin=1)
    prediction, reference = prediction[box], reference[box]
    overlap = Overlap.between(prediction, reference, voxels)
    surfaces = SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm)
    values = (
        *(overlap.dice(), overlap.iou(), overlap.precision(), overlap.recall()),
        *(surfaces.hausdorff(95), surfaces.assd(), surfaces.nsd(tolerance_mm)),
        *(volume_ml(mask, spacing_mm=spacing_mm) for mask in (prediction, reference)),
        *(error(prediction, reference, spacing_mm=spacing_mm) for error in (volume_error_ml, relative_volume_error)),
    )
    return dict(zip(NAMES, values, strict=True))
