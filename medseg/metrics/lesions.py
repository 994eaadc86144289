"""Structures that come in pieces, such as lesions: how many were found, and how well each.

A lesion is a piece of a mask that hangs together by faces, edges or corners. Which piece of the prediction goes with which of
the reference is decided by one of two rules:

- `one_to_one`: pieces are paired so that none is used twice; as many pairs as can be, and of these the ones that overlap most.
  A predicted piece that runs over three lesions finds one, and two are missed.
- `touch`: a lesion is found if any predicted piece overlaps it, and a predicted piece is right if it overlaps any lesion.

By either rule a pair counts only if its intersection over union is above `min_iou`; with 0 a single voxel is enough.

The empty case: NaN where both masks are empty; 0 where one is, for all lesions were missed or invented. A lesion may be one voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from medseg.errors import ConfigError
from medseg.extent import bounding_box, components
from medseg.metrics._grid import Array, Spacing, masks, number
from medseg.metrics._matching import Overlaps

Matching = Literal["one_to_one", "touch"]


@dataclass(frozen=True)
class Lesions:
    """Lesions of two masks; what is made of them is described with the functions.

    Args:
        dices: Dice of each lesion of the reference with what was found of it; 0 for a missed one.
        predicted: number of predicted pieces.
        right: how many of these go with a lesion.
        found: number of lesions of the reference that were found.
        overlaps: of all pieces.
    """

    dices: Array
    predicted: int
    right: int
    found: int
    overlaps: Overlaps

    @classmethod
    def between(cls, prediction: Any, reference: Any, matching: Matching = "one_to_one", min_iou: float = 0.0) -> Self:
        """Match the pieces of two masks; the arguments are those of `lesion_f1`."""
        if matching not in get_args(Matching):
            raise ConfigError(f"lesions are matched by {' or '.join(get_args(Matching))}, got '{matching}'")
        number(min_iou, lambda iou: 0 <= iou < 1, "min_iou, what the IoU of a pair exceeds, is 0 or more and below 1")
        prediction, reference = masks(prediction, reference)
        box = bounding_box(prediction | reference)
        overlaps = Overlaps.between(components(prediction[box]), components(reference[box]))
        allowed = overlaps.iou > min_iou
        pairs = overlaps.matched(allowed) if matching == "one_to_one" else np.flatnonzero(allowed)
        right, found = (np.unique(side) for side in overlaps.pairs[pairs].T)
        return cls(_dices(overlaps, pairs), len(overlaps.predicted), len(right), len(found), overlaps)

    def precision(self) -> float:
        """See `lesion_precision`."""
        return self._share(self.right, self.predicted)

    def recall(self) -> float:
        """See `lesion_recall`."""
        return self._share(self.found, len(self.dices))

    def f1(self) -> float:
        """See `lesion_f1`."""
        precision, recall = self.precision(), self.recall()
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def dice(self) -> float:
        """See `lesion_dice`."""
        return self._share(float(self.dices.sum()), len(self.dices) + self.predicted - self.right)

    def _share(self, part: float, whole: int) -> float:
        if not (self.predicted or len(self.dices)):
            return float("nan")
        return part / whole if whole else 0.0


def lesion_f1(
    prediction: Any,
    reference: Any,
    *,
    spacing_mm: Spacing = None,
    matching: Matching = "one_to_one",
    min_iou: float = 0.0,
) -> float:
    """Harmonic mean of `lesion_precision` and `lesion_recall`; one to one, `2 TP / (2 TP + FP + FN)` of lesions.

    Args:
        prediction: boolean array or tensor, 2D or 3D.
        reference: boolean array or tensor of the same shape.
        spacing_mm: not used.
        matching: "one_to_one" or "touch": see the top of this module.
        min_iou: what the intersection over union of a pair must exceed.

    Returns:
        0 to 1; NaN where both masks are empty.

    Raises:
        ConfigError: no such rule, or a `min_iou` that every pair or none exceeds.
    """
    return Lesions.between(prediction, reference, matching, min_iou).f1()


def lesion_precision(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **how: Any) -> float:
    """Share of the predicted pieces that go with a lesion; arguments and empty case as in `lesion_f1`."""
    return Lesions.between(prediction, reference, **how).precision()


def lesion_recall(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **how: Any) -> float:
    """Share of the lesions that were found; arguments and empty case as in `lesion_f1`."""
    return Lesions.between(prediction, reference, **how).recall()


def lesion_dice(prediction: Any, reference: Any, *, spacing_mm: Spacing = None, **how: Any) -> float:
    """Mean Dice over all lesions, where a missed one and an invented one count 0; arguments as in `lesion_f1`.

    By `touch` a lesion is compared with all predicted pieces together that overlap it.

    Reference: the lesion-wise Dice of the BraTS challenge 2023.
    """
    return Lesions.between(prediction, reference, **how).dice()


def _dices(overlaps: Overlaps, pairs: Array) -> Array:
    """Dice of each lesion of the reference with all predicted pieces that go with it."""
    predicted, true = overlaps.pairs[pairs].T
    shared, sizes = np.zeros((2, len(overlaps.true)))
    np.add.at(shared, true, overlaps.shared[pairs])
    np.add.at(sizes, true, overlaps.predicted[predicted])
    return np.asarray(2 * shared / (sizes + overlaps.true))
