"""The metrics of one structure that tables can show, and all of them in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from medseg.errors import ConfigError
from medseg.extent import bounding_box
from medseg.metrics._grid import Array, Spacing, axes_mm, masks
from medseg.metrics.boundary import boundary_iou, paper_mm
from medseg.metrics.confusion import MAPS
from medseg.metrics.instances import precision_of, quality
from medseg.metrics.lesions import Lesions
from medseg.metrics.overlap import Overlap
from medseg.metrics.surface import SurfaceDistances
from medseg.metrics.topology import betti_error, cl_dice
from medseg.metrics.volume import relative_volume_error, volume_error_ml, volume_ml
from medseg.registry import did_you_mean
from medseg.volume import diagonal
from medseg.wording import brief


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
    "average_precision": Measure(lambda s: precision_of(s.lesions.overlaps), "AP"),
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


def asked(names: Iterable[str]) -> tuple[str, ...]:
    """Names one by one; they may come as one text with commas.

    Raises:
        ConfigError: they are no names.
    """
    found = names.split(",") if isinstance(names, str) else names
    if not isinstance(found, Collection) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"metrics: expected names, such as dice,hd95_mm, got {brief(names)}")
    return tuple(name.strip() for name in found)


def pick(names: Iterable[str]) -> tuple[str, ...]:
    """Names of metrics of structures, checked and each once; "all" is all, "usual" the usual ones.

    Those of whole maps (`MAPS`) may be asked for, and are left out here: whoever measures a scan has them anyway.

    Raises:
        ConfigError: no such metric; names the nearest one.
    """
    wanted = dict.fromkeys(one for name in asked(names) for one in {"all": NAMES, "usual": USUAL}.get(name, (name,)))
    if unknown := [name for name in wanted if name not in MEASURES and name not in MAPS]:
        known = (*NAMES, *MAPS, "all", "usual")
        raise ConfigError(f"metrics: there is no '{unknown[0]}'. {did_you_mean(unknown[0], known)}")
    return tuple(name for name in wanted if name in MEASURES)


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
    return of_structure(
        prediction, reference, Grid.of(prediction.shape, spacing_mm, tolerance_mm, diagonal_mm), pick(names)
    )


def of_structure(prediction: Array, reference: Array, grid: Grid, names: tuple[str, ...]) -> dict[str, float]:
    box = bounding_box(prediction | reference, margin=1)
    if not prediction[box].size:
        return {name: 0.0 if name in _VOLUMES else float("nan") for name in names}
    structure = Structure(prediction[box], reference[box], grid)
    return {name: MEASURES[name].of(structure) for name in names}
