"""How much of two masks coincides.

The empty case, for every function here: NaN where both masks are empty, for there is nothing to measure; 0 where one is,
for a structure missed or invented counts as the worst. `spacing_mm` changes nothing: all metrics are called alike.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from medseg.metrics._grid import Array, Spacing, check


class Overlap(NamedTuple):
    """Numbers of voxels of two masks; what is made of them is described with the functions of the same names.

    Args:
        both: in both masks.
        predicted: in the prediction.
        true: in the reference.
    """

    both: float
    predicted: float
    true: float

    @classmethod
    def between(cls, prediction: Array, reference: Array) -> Self:
        """Count the voxels of two boolean arrays."""
        check(prediction, reference)
        return cls(*(int(np.count_nonzero(mask)) for mask in (prediction & reference, prediction, reference)))

    def dice(self) -> float:
        """See the function of that name."""
        return self._share(2 * self.both, self.predicted + self.true)

    def iou(self) -> float:
        """See the function of that name."""
        return self._share(self.both, self.predicted + self.true - self.both)

    def precision(self) -> float:
        """See the function of that name."""
        return self._share(self.both, self.predicted)

    def recall(self) -> float:
        """See the function of that name."""
        return self._share(self.both, self.true)

    def _share(self, part: float, whole: float) -> float:
        if not (self.predicted or self.true):
            return float("nan")
        return part / whole if whole else 0.0


def dice(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Dice coefficient, `2 |P and R| / (|P| + |R|)`.

    Args:
        prediction: boolean array, 2D or 3D.
        reference: boolean array of the same shape.
        spacing_mm: not used.

    Returns:
        0 to 1; NaN where both masks are empty.

    Reference: Dice, Ecology 26 (1945) 297.
    """
    return Overlap.between(prediction, reference).dice()


def iou(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Intersection over union (Jaccard index), `|P and R| / |P or R|`; arguments and empty case as in `dice`."""
    return Overlap.between(prediction, reference).iou()


def precision(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Share of the prediction that is right, `|P and R| / |P|`; arguments and empty case as in `dice`."""
    return Overlap.between(prediction, reference).precision()


def recall(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Share of the reference that was found, `|P and R| / |R|`; arguments and empty case as in `dice`."""
    return Overlap.between(prediction, reference).recall()
