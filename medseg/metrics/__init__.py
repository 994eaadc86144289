"""How good a mask is: functions of boolean arrays and the voxel size in mm.

Each of `overlap`, `surface` and `volume` decides the empty case at its top; `scores` gives all of them in one pass.
"""

from __future__ import annotations

from medseg.extent import bounding_box
from medseg.metrics._grid import Array, Spacing, axes_mm, check
from medseg.metrics.overlap import Overlap, dice, iou, precision, recall
from medseg.metrics.surface import SurfaceDistances
from medseg.metrics.volume import relative_volume_error, volume_error_ml, volume_ml
from medseg.volume import diagonal

__all__ = (
    "NAMES",
    "dice",
    "iou",
    "precision",
    "recall",
    "relative_volume_error",
    "scores",
    "volume_error_ml",
    "volume_ml",
)
NAMES = (
    *("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd"),
    *("volume_ml", "reference_ml", "volume_error_ml", "relative_volume_error"),
)


def scores(
    prediction: Array,
    reference: Array,
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
    check(prediction, reference)
    if diagonal_mm is None:
        diagonal_mm = diagonal(prediction.shape, axes_mm(spacing_mm, prediction.ndim))
    # With its margin a structure that fills one slice of many stays a volume: only an image of one slice is flat.
    box = bounding_box(prediction | reference, margin=1)
    prediction, reference = prediction[box], reference[box]
    overlap = Overlap.between(prediction, reference)
    surfaces = SurfaceDistances.between(prediction, reference, spacing_mm, diagonal_mm)
    values = (
        *(overlap.dice(), overlap.iou(), overlap.precision(), overlap.recall()),
        *(surfaces.hausdorff(95), surfaces.assd(), surfaces.nsd(tolerance_mm)),
        *(volume_ml(mask, spacing_mm=spacing_mm) for mask in (prediction, reference)),
        *(error(prediction, reference, spacing_mm=spacing_mm) for error in (volume_error_ml, relative_volume_error)),
    )
    return dict(zip(NAMES, values, strict=True))
