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
from medseg.metrics._grid import Array, Spacing, annotated, arrays, number

_BINS = 1_000_000
_PART = 1 << 20  # voxels that are sorted into bins at once: each takes eight bytes
_ROUNDING = 1e-6  # of probabilities that were averaged or interpolated


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
        ConfigError: no such number of bins, or an `ignore` that is no whole number.
        GeometryError: the shapes do not fit, values are no probabilities, or the reference holds no classes of theirs.

    Reference: DeGroot and Fienberg, The Statistician 32 (1983) 12.
    """
    bins = int(number(bins, lambda n: 1 <= n <= _BINS and n.is_integer(), f"bins: 1 to {_BINS} are needed"))
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
    if wrong := [str(array.dtype) for array in (given, true) if array.dtype.kind not in "biuf"]:
        raise GeometryError(f"probabilities and a reference are numbers, got {' and '.join(wrong)}")
    if given.shape[given.ndim - true.ndim :] != true.shape or given.ndim - true.ndim not in (0, 1):
        raise GeometryError(
            f"probabilities {given.shape} do not fit a reference {true.shape}: give (K, *spatial) or (*spatial)"
        )
    given = given.reshape(*given.shape[: given.ndim - true.ndim], true.size)
    given, true = given.astype(np.result_type(given, np.float32), copy=False), true.reshape(-1)
    if ignore is not None:
        known = annotated(true, ignore)
        given, true = given[..., known], true[known]
    if true.size:
        _check_values(given, true, classes=2 if given.ndim == 1 else len(given))
    return given, true


def _check_values(given: Array, true: Array, classes: int) -> None:
    low, high = given.min(), given.max()
    if np.isnan(low):
        raise GeometryError(
            "probabilities lie between 0 and 1, got NaN: look at the image, or at the network's weights"
        )
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise GeometryError(f"probabilities lie between 0 and 1, got {low:.3g} to {high:.3g}: apply a softmax")
    if true.dtype.kind not in "biu" and (true != np.round(true)).any():
        raise GeometryError("the reference holds whole numbers or booleans, got fractions: take the likeliest class")
    if true.min() < 0 or true.max() >= classes:
        raise GeometryError(
            f"the reference holds {int(true.min())} to {int(true.max())}, the probabilities are of classes 0 to {classes - 1}: "
            "name with `ignore` what nobody annotated"
        )


def _confidences(given: Array, true: Array) -> tuple[Array, Array]:
    if given.ndim == 1:
        return given, true.astype(bool)
    return given.max(axis=0), given.argmax(axis=0) == true
