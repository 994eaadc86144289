"""Means over cases and how far to trust them. NaN is a value that does not exist: it is left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.metrics._grid import Array, of_cases

_DRAWS = 2000  # of the bootstrap


def mean(values: Array, axis: int = 0) -> Array:
    """Mean along an axis; NaN where nothing has a value."""
    return _quietly(np.nanmean, values, axis=axis)


def median(values: Array) -> Array:
    """Median along the first axis; NaN where nothing has a value."""
    return _quietly(np.nanmedian, values, axis=0)


def interval(draws: Array) -> Array:
    """Both ends of the 95 % interval of bootstrapped means along the first axis, stacked."""
    return _quietly(np.nanpercentile, draws, (2.5, 97.5), axis=0)


def bootstrap(values: Array, patients: Sequence[str], seed: int) -> Array:
    """Means over the cases of patients drawn with replacement.

    The cases of a patient resemble each other: drawing cases instead would promise too narrow an interval.

    Args:
        values: `(cases, ...)`.
        patients: the patient of each case.
        seed: of the draws, which are the same patients for all values.

    Returns:
        `(draws, ...)`; NaN where fewer than two patients have a value, for nothing is known of the spread then.

    Raises:
        GeometryError: values are no numbers, or not one for each patient named.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals).
    """
    values = of_cases(values, patients)
    names, patient = np.unique(list(patients), return_inverse=True)
    belongs, known = np.eye(len(names))[patient].T, np.isfinite(values)  # (patients, cases)
    sums = np.tensordot(belongs, np.where(known, values, 0.0), 1)  # (patients, ...)
    counts = np.tensordot(belongs, known.astype(float), 1)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), _DRAWS)
    means = _quietly(np.divide, np.tensordot(drawn, sums, 1), np.tensordot(drawn, counts, 1))
    return np.where((counts > 0).sum(axis=0) < 2, np.nan, means)


def overall(draws: Array, means: Array) -> Array:
    """Bootstrapped means over labels, each of the same labels as the mean that is reported.

    A label that a draw lacks stands there with its observed mean. So does, in all draws, a label that one patient alone
    has: it counts in the interval as it does in the mean, and adds no width, for nothing is known of its spread.

    Args:
        draws: `(draws, labels)`, from `bootstrap`.
        means: `(labels,)`, the observed ones.

    Returns:
        `(draws,)`; NaN where no label has two patients.
    """
    if not np.isfinite(draws).any():
        return np.full(len(draws), np.nan)
    return mean(np.where(np.isfinite(draws), draws, means), axis=1)


def _quietly(function: Any, *args: Any, **options: Any) -> Array:
    """NumPy warns of what is announced here: a result that is NaN because nothing has a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(function(*args, **options))
