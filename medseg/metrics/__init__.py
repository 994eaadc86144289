"""How good a mask is: functions of arrays or tensors and the voxel size in mm.

Each module decides the empty case at its top. `scores` gives many metrics of one structure in one pass, `evaluate` those of
all structures of a scan; `MEASURES` says what they can give. docs/metrics.md has every definition with its proof.
"""

from __future__ import annotations

from medseg.metrics._measures import MEASURES, NAMES, USUAL, asked, pick, scores
from medseg.metrics._scan import ScanScores, evaluate
from medseg.metrics.boundary import boundary_iou
from medseg.metrics.calibration import brier, expected_calibration_error, reliability_curve
from medseg.metrics.confusion import (
    MAPS,
    confusion_matrix,
    frequency_weighted_iou,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
)
from medseg.metrics.instances import average_precision, panoptic_quality
from medseg.metrics.lesions import lesion_dice, lesion_f1, lesion_precision, lesion_recall
from medseg.metrics.overlap import (
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
from medseg.metrics.raters import inter_rater_dice, staple
from medseg.metrics.surface import assd, hausdorff, masd, nsd
from medseg.metrics.topology import betti_error, betti_numbers, cl_dice
from medseg.metrics.volume import relative_volume_error, volume_error_ml, volume_ml

__all__ = (
    "MAPS",
    "MEASURES",
    "NAMES",
    "USUAL",
    "ScanScores",
    "accuracy",
    "asked",
    "assd",
    "average_precision",
    "balanced_accuracy",
    "betti_error",
    "betti_numbers",
    "boundary_iou",
    "brier",
    "cl_dice",
    "confusion_matrix",
    "dice",
    "evaluate",
    "expected_calibration_error",
    "frequency_weighted_iou",
    "hausdorff",
    "inter_rater_dice",
    "iou",
    "kappa",
    "lesion_dice",
    "lesion_f1",
    "lesion_precision",
    "lesion_recall",
    "masd",
    "mcc",
    "mean_iou",
    "mean_pixel_accuracy",
    "nsd",
    "panoptic_quality",
    "pick",
    "pixel_accuracy",
    "precision",
    "recall",
    "relative_volume_error",
    "reliability_curve",
    "scores",
    "specificity",
    "staple",
    "volume_error_ml",
    "volume_ml",
    "volumetric_similarity",
)
