"""Maps of instances: every number but 0 is one object. How many objects were found, and how well they are drawn.

The empty case: NaN where no map holds an object; 0 where one holds none, for all were missed or invented. An object may be one
voxel. `spacing_mm` changes nothing: all metrics are called alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medseg.errors import ConfigError, GeometryError
from medseg.metrics._grid import Spacing, maps
from medseg.metrics._matching import Overlaps
from medseg.wording import brief

COCO = tuple(n / 100 for n in range(50, 100, 5))
_ROUNDING = 1e-9
_RECALLS = np.linspace(0, 1, 101)


def average_precision(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    thresholds: float | Sequence[float] = COCO,
    scores: Mapping[int, float] | None = None,
) -> float:
    """Average precision at thresholds of intersection over union; 0.5 gives AP50, 0.75 gives AP75.

    Without scores a threshold's value is `TP / (TP + FP + FN)`, as in the Data Science Bowl 2018 and for cells: objects are
    paired one to one where their IoU reaches the threshold. With scores it is the area under the curve of precision over
    recall as COCO has it: objects are taken from the surest on, each takes the free object of the reference that it overlaps
    most, precision is made to fall, and is read off at 101 recalls.

    Args:
        prediction: map of instances, array or tensor, 2D or 3D.
        reference: likewise, of the same shape.
        spacing_mm: not used.
        thresholds: one or several, of which the mean is taken; COCO's are .5, .55 ... .95.
        scores: how sure each object of the prediction is, by its number.

    Returns:
        0 to 1; NaN where neither map holds an object.

    Raises:
        ConfigError: no threshold, or one that is no IoU; scores that belong to no numbers.
        GeometryError: the maps cannot be compared, or an object has no score.

    Reference: Lin et al., Microsoft COCO (ECCV 2014); Caicedo et al., Nature Methods 16 (2019) 1247.
    """
    return precision_of(Overlaps.between(*maps(prediction, reference)), thresholds, scores)


def precision_of(
    overlaps: Overlaps, thresholds: float | Sequence[float] = COCO, scores: Mapping[int, float] | None = None
) -> float:
    """`average_precision` of objects whose overlaps are known."""
    asked = np.atleast_1d(thresholds)
    if asked.dtype.kind not in "fiu" or not (asked.size and ((asked > 0) & (asked <= 1)).all()):
        raise ConfigError(f"thresholds of IoU lie above 0 and up to 1 (.5 is AP50), got {brief(thresholds)}")
    if not isinstance(scores, Mapping | None):
        raise ConfigError(
            f"scores are numbers by the numbers of objects, such as {{1: 0.9, 2: 0.4}}, got {brief(scores)}"
        )
    if not (len(overlaps.predicted) or len(overlaps.true)):
        return float("nan")
    if scores is None:
        return float(np.mean([_jaccard(overlaps, threshold) for threshold in asked]))
    sure = np.array([scores.get(name, np.nan) for name in overlaps.names.tolist()], float)
    if missing := overlaps.names[np.isnan(sure)].tolist():
        raise GeometryError(f"every object needs a score, but {missing[:5]} have none")
    order = np.argsort(-sure, kind="stable").tolist()
    return float(np.mean([_area(overlaps, threshold, order) for threshold in asked]))


class Quality(NamedTuple):
    """What the panoptic quality of a class is made of.

    Args:
        iou: sum of the IoU of the matched objects.
        matched: number of objects whose IoU exceeds one half; no object can have two such partners.
        missed: objects of the reference without a partner.
        invented: objects of the prediction without one.
    """

    iou: float
    matched: int
    missed: int
    invented: int

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched objects; 0 where none is."""
        return self.iou / self.matched if self.matched else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: the F1 of objects."""
        whole = self.matched + (self.missed + self.invented) / 2
        return self.matched / whole if whole else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality, `SQ x RQ`."""
        return self.sq * self.rq


def panoptic_quality(
    prediction: Any, reference: Any, *, spacing_mm: Spacing = None, classes: tuple[Any, Any] | None = None
) -> float:
    """Panoptic quality, `PQ = SQ x RQ`: mean over classes; `qualities` has each class with its parts.

    Args:
        prediction: map of instances, array or tensor, 2D or 3D.
        reference: likewise, of the same shape.
        spacing_mm: not used.
        classes: maps of the class of each voxel, of prediction and reference; in 0 is no object. Without, all objects are of one
            class. A class that is no collection of things, such as background tissue, is one object. Voxels that nobody
            annotated (the paper's void) are to be 0 in both maps of instances.

    Returns:
        0 to 1; NaN where neither map holds an object.

    Raises:
        ConfigError: classes other than two maps.
        GeometryError: the maps cannot be compared.

    Reference: Kirillov et al., Panoptic Segmentation (CVPR 2019), equations 1 and 2.
    """
    found = [each.pq for each in qualities(prediction, reference, classes).values()]
    return float(np.mean(found)) if found else float("nan")


def qualities(prediction: Any, reference: Any, classes: tuple[Any, Any] | None = None) -> dict[int, Quality]:
    """`Quality` of every class that either map holds; the arguments are those of `panoptic_quality`."""
    prediction, reference = maps(prediction, reference)
    if classes is None:
        found = {1: quality(Overlaps.between(prediction, reference))}
    elif not isinstance(classes, tuple | list) or len(classes) != 2:
        raise ConfigError(f"classes are two maps, (of prediction, of reference), got {brief(classes)}")
    else:
        of_p, of_r, _ = maps(*classes, prediction)
        found = {
            int(each): quality(Overlaps.between(prediction * (of_p == each), reference * (of_r == each)))
            for each in np.union1d(of_p, of_r)
            if each
        }
    return {each: one for each, one in found.items() if one[1:] != (0, 0, 0)}


def quality(overlaps: Overlaps) -> Quality:
    """`Quality` of the objects of one class."""
    iou = overlaps.iou[overlaps.iou > 0.5]
    return Quality(float(iou.sum()), len(iou), len(overlaps.true) - len(iou), len(overlaps.predicted) - len(iou))


def _jaccard(overlaps: Overlaps, threshold: float) -> float:
    matched = len(overlaps.matched(overlaps.iou >= threshold - _ROUNDING))
    return matched / (len(overlaps.predicted) + len(overlaps.true) - matched)


def _area(overlaps: Overlaps, threshold: float, order: Sequence[int]) -> float:
    """Area under precision over recall, of objects in the order of their scores."""
    if not (len(overlaps.true) and len(order)):
        return 0.0
    right, free, iou = np.zeros(len(order), bool), np.ones(len(overlaps.true), bool), overlaps.iou
    for rank, piece in enumerate(order):
        near = np.flatnonzero((overlaps.pairs[:, 0] == piece) & (iou >= threshold - _ROUNDING))
        near = near[free[overlaps.pairs[near, 1]]]
        if len(near):
            right[rank], free[overlaps.pairs[near[iou[near].argmax()], 1]] = True, False
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(order) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / len(overlaps.true), _RECALLS)
    return float(np.append(precision, 0.0)[at].mean())
