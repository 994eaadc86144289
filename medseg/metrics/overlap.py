"""How much of two masks coincides.

The empty case, for every function here: NaN where both masks are empty, for there is nothing to measure; 0 where one is,
for a structure missed or invented counts as the worst. `spacing_mm` changes nothing: all metrics are called alike.
"""

from __future__ import annotations

import numpy as np

from medseg.metrics._grid import Array, Spacing, check


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
    return dice_of(*_counts(prediction, reference))


def dice_of(both: float, predicted: float, true: float) -> float:
    """Dice coefficient of numbers of voxels: in both masks, in the prediction and in the reference; empty case as in `dice`."""
    return _ratio(2 * both, predicted + true, predicted + true)


def iou(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Intersection over union (Jaccard index), `|P and R| / |P or R|`; arguments and empty case as in `dice`."""
    both, predicted, true = _counts(prediction, reference)
    return _ratio(both, predicted + true - both, predicted + true)


def precision(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Share of the prediction that is right, `|P and R| / |P|`; arguments and empty case as in `dice`."""
    both, predicted, true = _counts(prediction, reference)
    return _ratio(both, predicted, predicted + true)


def recall(prediction: Array, reference: Array, *, spacing_mm: Spacing = None) -> float:
    """Share of the reference that was found, `|P and R| / |R|`; arguments and empty case as in `dice`."""
    both, predicted, true = _counts(prediction, reference)
    return _ratio(both, true, predicted + true)


def _counts(prediction: Array, reference: Array) -> tuple[int, int, int]:
    check(prediction, reference)
    return (
        int(np.count_nonzero(prediction & reference)),
        int(np.count_nonzero(prediction)),
        int(np.count_nonzero(reference)),
    )


def _ratio(part: float, whole: float, anything: float) -> float:
    if not anything:
        return float("nan")
    return part / whole if whole else 0.0
