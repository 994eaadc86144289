"""How good a mask is: functions of arrays or tensors and the voxel size in mm.

Each module decides the empty case at its top. `scores` gives many metrics of one structure in one pass, `evaluate` those of
all structures of a scan; `MEASURES` says what they can give. docs/metrics.md has every definition with its proof.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from medseg.errors import ConfigError
from medseg.extent import bounding_box
from medseg.labels import Labels
from medseg.metrics._grid import Array, Spacing, arrays, axes_mm, maps, masks
from medseg.metrics.boundary import boundary_iou, paper_mm
from medseg.metrics.calibration import brier, expected_calibration_error, reliability_curve
from medseg.metrics.confusion import (
    confusion_matrix,
    frequency_weighted_iou,
    mean_iou,
    mean_pixel_accuracy,
    of_matrix,
    pixel_accuracy,
)
from medseg.metrics.instances import average_precision, panoptic_quality, quality
from medseg.metrics.lesions import Lesions, lesion_dice, lesion_f1, lesion_precision, lesion_recall
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
from medseg.metrics.raters import inter_rater_dice, staple
from medseg.metrics.surface import SurfaceDistances, assd, hausdorff, masd, nsd
from medseg.metrics.topology import betti_error, betti_numbers, cl_dice
from medseg.metrics.volume import relative_volume_error, volume_error_ml, volume_ml
from medseg.registry import did_you_mean
from medseg.volume import diagonal

__all__ = (
    "MEASURES",
    "NAMES",
    "USUAL",
    "accuracy",
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


class Structure:
    """Two masks of one structure, cut out of their grid; what several metrics need is found once.

    Args:
        prediction: boolean array, with a margin of one voxel where the grid has one, so that a structure that fills one slice
            of many stays a volume: only an image of one slice is flat.
        reference: likewise.
        grid: where they were cut out.
    """

    def __init__(self, prediction: Array, reference: Array, grid: Grid) -> None:
        self.pair, self.grid = (prediction, reference), grid
        self.spacing = {"spacing_mm": grid.axes}

    @cached_property
    def overlap(self) -> Overlap:
        """Counts of voxels."""
        return Overlap.between(*self.pair, self.grid.voxels)

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        """Distances of both surfaces."""
        return SurfaceDistances.between(*self.pair, self.grid.axes, self.grid.diagonal_mm)

    @cached_property
    def lesions(self) -> Lesions:
        """Pieces, matched one to one."""
        return Lesions.between(*self.pair)


class Grid(NamedTuple):
    """What is asked of every structure of a scan.

    Args:
        axes: steps from a voxel to its next in mm, one column an axis.
        voxels: how many count.
        diagonal_mm: the distance that stands for a surface missed or invented.
        tolerance_mm: the distance of surfaces that NSD forgives.
        rim_mm: the distance from the outside within which boundary IoU looks.
    """

    axes: Array
    voxels: int
    diagonal_mm: float
    tolerance_mm: float
    rim_mm: float

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing_mm: Spacing, tolerance_mm: float, diagonal_mm: float | None) -> Grid:
        """The grid of an array."""
        axes = axes_mm(spacing_mm, len(shape))
        longest = diagonal(shape, axes) if diagonal_mm is None else diagonal_mm
        return cls(axes, int(np.prod(shape)), longest, tolerance_mm, paper_mm(shape, axes))


class Measure(NamedTuple):
    """A metric of a structure, and how it is shown.

    Args:
        of: the value.
        heading: of a table's column.
        form: how a number is written.
        better: which values are.
    """

    of: Callable[[Structure], float]
    heading: str
    form: str = ".3f"
    better: Literal["high", "low", "near 0", ""] = "high"

    def goodness(self, values: Array) -> Array:
        """Values turned so that more is better; volumes alone are neither good nor bad, and stay."""
        return {"low": -values, "near 0": -np.abs(values)}.get(self.better, values)


MEASURES: Mapping[str, Measure] = {
    "dice": Measure(lambda s: s.overlap.dice(), "Dice"),
    "iou": Measure(lambda s: s.overlap.iou(), "IoU"),
    "precision": Measure(lambda s: s.overlap.precision(), "Precision"),
    "recall": Measure(lambda s: s.overlap.recall(), "Recall"),
    "specificity": Measure(lambda s: s.overlap.specificity(), "Specificity"),
    "accuracy": Measure(lambda s: s.overlap.accuracy(), "Accuracy"),
    "balanced_accuracy": Measure(lambda s: s.overlap.balanced_accuracy(), "Balanced accuracy"),
    "kappa": Measure(lambda s: s.overlap.kappa(), "Kappa"),
    "mcc": Measure(lambda s: s.overlap.mcc(), "MCC"),
    "nsd": Measure(lambda s: s.surfaces.nsd(s.grid.tolerance_mm), "NSD"),
    "hd_mm": Measure(lambda s: s.surfaces.hausdorff(100), "HD, mm", ".2f", "low"),
    "hd95_mm": Measure(lambda s: s.surfaces.hausdorff(95), "HD95, mm", ".2f", "low"),
    "assd_mm": Measure(lambda s: s.surfaces.assd(), "ASSD, mm", ".2f", "low"),
    "masd_mm": Measure(lambda s: s.surfaces.masd(), "MASD, mm", ".2f", "low"),
    "boundary_iou": Measure(lambda s: boundary_iou(*s.pair, **s.spacing, distance_mm=s.grid.rim_mm), "Boundary IoU"),
    "lesion_f1": Measure(lambda s: s.lesions.f1(), "Lesion F1"),
    "lesion_precision": Measure(lambda s: s.lesions.precision(), "Lesion precision"),
    "lesion_recall": Measure(lambda s: s.lesions.recall(), "Lesion recall"),
    "lesion_dice": Measure(lambda s: s.lesions.dice(), "Lesion Dice"),
    "panoptic_quality": Measure(lambda s: quality(s.lesions.overlaps).pq, "PQ"),
    "betti_error": Measure(lambda s: betti_error(*s.pair), "Betti error", ".2f", "low"),
    "cl_dice": Measure(lambda s: cl_dice(*s.pair), "clDice"),
    "volumetric_similarity": Measure(lambda s: s.overlap.volumetric_similarity(), "Volumetric similarity"),
    "volume_ml": Measure(lambda s: volume_ml(s.pair[0], **s.spacing), "Volume, ml", ".2f", ""),
    "reference_ml": Measure(lambda s: volume_ml(s.pair[1], **s.spacing), "Reference, ml", ".2f", ""),
    "volume_error_ml": Measure(lambda s: volume_error_ml(*s.pair, **s.spacing), "Volume error, ml", "+.2f", "near 0"),
    "relative_volume_error": Measure(
        lambda s: relative_volume_error(*s.pair, **s.spacing), "Volume error", "+.1%", "near 0"
    ),
}
NAMES = tuple(MEASURES)
_VOLUMES = ("volume_ml", "reference_ml")
USUAL = (
    *("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd"),
    *(*_VOLUMES, "volume_error_ml", "relative_volume_error"),
)


class ScanScores(dict[Any, dict[str, float]]):
    """Metrics of each structure of a scan, by its label and their names; `overall` holds those of the whole map of classes."""

    overall: dict[str, float]


def pick(names: Iterable[str]) -> tuple[str, ...]:
    """Names of metrics, checked and each once; "all" is all, "usual" the usual ones.

    Raises:
        ConfigError: no such metric; names the nearest one.
    """
    wanted = dict.fromkeys(one for name in names for one in {"all": NAMES, "usual": USUAL}.get(name, (name,)))
    if unknown := [name for name in wanted if name not in MEASURES]:
        raise ConfigError(f"metrics: there is no '{unknown[0]}'. {did_you_mean(unknown[0], (*NAMES, 'all', 'usual'))}")
    return tuple(wanted)


def scores(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    tolerance_mm: float = 1.0,
    diagonal_mm: float | None = None,
    names: Collection[str] = USUAL,
) -> dict[str, float]:
    """Metrics of one structure; cropped first, and each surface found once.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: voxel size along each axis, or the axes as columns of a matrix (they may be sheared); None is 1 mm.
        tolerance_mm: the distance of surfaces that `nsd` forgives.
        diagonal_mm: the distance that stands for a surface missed or invented; None is the diagonal of the array.
        names: which, of `NAMES`.

    Returns:
        Names to values. Where both masks are empty both volumes are 0 and all else is NaN.
    """
    prediction, reference = masks(prediction, reference)
    return _of(prediction, reference, Grid.of(prediction.shape, spacing_mm, tolerance_mm, diagonal_mm), pick(names))


def evaluate(
    prediction: Any,
    reference: Any,
    labels: Labels | Mapping[str, Any] | Iterable[int],
    spacing_mm: Spacing = None,
    *,
    tolerance_mm: float = 1.0,
    diagonal_mm: float | None = None,
    names: Collection[str] = NAMES,
) -> ScanScores:
    """All metrics of all structures of a scan, in one pass.

    Args:
        prediction: map of labels, array or tensor, 2D or 3D; or `(C, I, J, K)` as `Volume.array` holds it, with a channel for each
            label where they overlap.
        reference: likewise, of the same spatial shape. Voxels that the labels say to ignore are background in both.
        labels: the structures: values, names to values, or `Labels`. Other values count as background.
        spacing_mm: as in `scores`.
        tolerance_mm: as in `scores`.
        diagonal_mm: as in `scores`.
        names: which, of `NAMES`; `USUAL` are the quick ones that most papers report.

    Returns:
        What `scores` gives of each structure, by its value, or by its name where labels have names. `overall` holds
        `pixel_accuracy`, `mean_pixel_accuracy`, `mean_iou` and `frequency_weighted_iou` of the map of all these classes with
        background; nothing where labels overlap.

    Example:
        >>> found = evaluate([[0, 1, 2]], [[0, 1, 1]], (1, 2), names=("dice",))
        >>> found[1], round(found.overall["pixel_accuracy"], 3)
        ({'dice': 0.6666666666666666}, 0.667)
    """
    known_labels = (
        labels if isinstance(labels, Labels) else Labels.of(labels if isinstance(labels, Mapping) else [*labels])
    )
    keys = known_labels.names if isinstance(labels, Labels | Mapping) else [item.values[0] for item in known_labels]
    given = [array[None] if array.ndim < 4 else array for array in arrays(prediction, reference)]
    maps(*(array[0] for array in given))
    wanted, grid = pick(names), Grid.of(given[0].shape[1:], spacing_mm, tolerance_mm, diagonal_mm)
    # Most of a scan is background: from here on only the box that holds all structures is looked at.
    box = (slice(None), *bounding_box((given[0] != 0).any(0) | (given[1] != 0).any(0), margin=1))
    predicted, true = (array[box] for array in given)
    known = known_labels.known(true)
    grid = grid._replace(voxels=grid.voxels - int(np.count_nonzero(~known)))
    found, classes = ScanScores(), np.zeros((2, *known.shape), np.int16)
    for number, (key, item) in enumerate(zip(keys, known_labels, strict=True), 1):
        pair = [known_labels.mask(array, item) & known for array in (predicted, true)]
        found[key] = _of(pair[0], pair[1], grid, wanted)
        classes[0][pair[0]] = classes[1][pair[1]] = number
    found.overall = _overall(classes, len(keys) + 1, grid.voxels, known) if known_labels.exclusive else {}
    return found


def _of(prediction: Array, reference: Array, grid: Grid, names: tuple[str, ...]) -> dict[str, float]:
    box = bounding_box(prediction | reference, margin=1)
    if not prediction[box].size:
        return {name: 0.0 if name in _VOLUMES else float("nan") for name in names}
    structure = Structure(prediction[box], reference[box], grid)
    return {name: MEASURES[name].of(structure) for name in names}


def _overall(classes: Array, number: int, voxels: int, known: Array) -> dict[str, float]:
    """Metrics of maps that were cut out of a grid on which so many voxels count: all others are background in both."""
    matrix = confusion_matrix(classes[0][known][None], classes[1][known][None], labels=range(number))
    matrix[0, 0] += voxels - matrix.sum()
    return of_matrix(matrix)
