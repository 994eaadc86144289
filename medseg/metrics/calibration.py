"""Whether probabilities keep what they promise: of all voxels said to be right with 80 %, are four of five?

Probabilities come in one of two shapes. Of the reference's own shape, they are those of its foreground, and are compared
with how often there is foreground. With an axis of classes before it, the likeliest class of a voxel is what is predicted, and
its probability is compared with how often that is right.

The empty case: a reference without foreground is a reference like any other, for every voxel of the background says
something. NaN where no voxel counts. `spacing_mm` changes nothing: all metrics are called alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from medseg.errors import GeometryError
from medseg.metrics._grid import Array, Spacing, arrays

_PART = 1 << 20  # voxels that are sorted into bins at once: each takes eight bytes


class Reliability(NamedTuple):
    """A reliability curve: one value a bin, from the least sure.

    Args:
        confidence: mean probability of the voxels in the bin; NaN where it is empty.
        frequency: share of them that is right (or foreground).
        voxels: how many they are.
    """

    confidence: Array
    frequency: Array
    voxels: Array

    def expected_error(self) -> float:
        """See `expected_calibration_error`."""
        total = self.voxels.sum()
        gaps = np.where(self.voxels > 0, abs(self.confidence - self.frequency), 0.0)
        return float(gaps @ self.voxels / total) if total else float("nan")


def reliability_curve(
    probabilities: Any, reference: Any, *, spacing_mm: Spacing = None, bins: int = 15, ignore: int | None = None
) -> Reliability:
    """How often voxels are right, against how sure the prediction is of them.

    Args:
        probabilities: 0 to 1, array or tensor; `(*spatial)` of the foreground, or `(K, *spatial)`.
        reference: `(*spatial)`: boolean, or the number of the class.
        spacing_mm: not used.
        bins: of equal width; a value on an edge belongs to the bin below.
        ignore: voxels of this value in the reference are not counted.

    Raises:
        GeometryError: the shapes do not fit, or values are no probabilities.

    Reference: DeGroot and Fienberg, The Statistician 32 (1983) 12.
    """
    confidence, right = _confidences(*_checked(probabilities, reference, ignore))
    edges, sums = np.linspace(0, 1, bins + 1)[1:-1], np.zeros((3, bins))
    for start in range(0, len(confidence), _PART):
        part = slice(start, start + _PART)
        at = np.searchsorted(edges, confidence[part])
        for total, weights in zip(sums, (confidence[part], right[part], None), strict=True):
            total += np.bincount(at, weights, minlength=bins)
    voxels = sums[2]
    confidence, frequency = np.divide(sums[:2], voxels, where=voxels > 0, out=np.full((2, bins), np.nan))
    return Reliability(confidence, frequency, voxels.astype(np.int64))


def expected_calibration_error(
    probabilities: Any, reference: Any, *, spacing_mm: Spacing = None, bins: int = 15, ignore: int | None = None
) -> float:
    """Mean over voxels of the gap between promise and truth of their bin, 0 to 1; arguments as in `reliability_curve`.

    Background that is surely background makes it small: compare it between models on the same scans alone.

    Reference: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), equation 3.
    """
    return reliability_curve(probabilities, reference, bins=bins, ignore=ignore).expected_error()


def brier(probabilities: Any, reference: Any, *, spacing_mm: Spacing = None, ignore: int | None = None) -> float:
    """Mean squared error of probabilities: 0 to 1 for a foreground; summed over classes, 0 to 2, for several.

    Arguments as in `reliability_curve`.

    Reference: Brier, Monthly Weather Review 78 (1950) 1, equation 2.
    """
    given, true = _checked(probabilities, reference, ignore)
    if not true.size:
        return float("nan")
    if given.ndim == 1:
        return float(np.mean((given - true.astype(bool)) ** 2, dtype=np.float64))
    return float(sum(np.mean((p - (true == n)) ** 2, dtype=np.float64) for n, p in enumerate(given)))


def _checked(probabilities: Any, reference: Any, ignore: int | None) -> tuple[Array, Array]:
    """Probabilities `(voxels,)` or `(K, voxels)` and the reference `(voxels,)` of the voxels that count."""
    given, true = arrays(probabilities, reference)
    if given.shape[given.ndim - true.ndim :] != true.shape or given.ndim - true.ndim not in (0, 1):
        raise GeometryError(
            f"probabilities {given.shape} do not fit a reference {true.shape}: give (K, *spatial) or (*spatial)"
        )
    known = np.ones(true.shape, bool) if ignore is None else true != ignore
    given, true = given[..., known], true[known]
    if given.size and not (given.min() >= 0 and given.max() <= 1):
        raise GeometryError(
            f"probabilities lie between 0 and 1, got {given.min():.3g} to {given.max():.3g}: apply a softmax"
        )
    if true.size and (true.min() < 0 or int(true.max()) >= (2 if given.ndim == 1 else len(given))):
        raise GeometryError(f"the reference holds classes up to {int(true.max())}, the probabilities have fewer")
    return given, true


def _confidences(given: Array, true: Array) -> tuple[Array, Array]:
    if given.ndim == 1:
        return given, true.astype(bool)
    return given.max(axis=0), given.argmax(axis=0) == true
