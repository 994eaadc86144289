"""Do two runs differ, on the same cases? Tests of paired differences, and what many tests at once ask for.

The patient is what is drawn by chance: of several cases of a patient the mean difference counts. NaN is a difference that
does not exist: it is left out. With fewer than two patients nothing can be said, and every test gives NaN.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import numpy as np

from medseg.errors import GeometryError
from medseg.metrics._grid import Array, of_cases

_ALIKE = 1e-5  # of the largest: what lies closer together is equal, for tables hold six digits


def by_patient(differences: Array, patients: Sequence[str]) -> Array:
    """Mean difference of each patient: `(cases,)` to `(patients,)`, without those who have none.

    Raises:
        GeometryError: differences are no numbers, or not one for each patient named.
    """
    given = of_cases(differences, patients)
    if given.ndim > 1:
        raise GeometryError(f"a test compares one number a case, got {given.shape}: take one label and metric")
    known = np.isfinite(given)
    _, patient = np.unique(np.asarray(list(patients))[known], return_inverse=True)
    return np.asarray(np.bincount(patient, given[known]) / np.bincount(patient))


def permutation(differences: Array, patients: Sequence[str], seed: int = 0, draws: int = 9999) -> float:
    """Two-sided p value of the mean difference, were the two runs exchangeable: signs are turned at random.

    Args:
        differences: of each case.
        patients: the patient of each case.
        seed: of the draws.
        draws: how many; all turns are tried where there are no more.

    Reference: Good, Permutation Tests (1994); Phipson and Smyth, Statistical Applications in Genetics 9 (2010) 39 (a p value of
        draws is never 0).
    """
    of_patients = by_patient(differences, patients)
    size = len(of_patients)
    if size < 2:
        return float("nan")
    exact = 2**size <= draws + 1
    if exact:
        signs = np.array(list(itertools.product((-1, 1), repeat=size)))
    else:
        signs = np.random.default_rng(seed).integers(0, 2, (draws, size), np.int8) * 2 - 1
    turned, observed = abs(signs @ of_patients), abs(of_patients.sum())
    as_far = int(np.count_nonzero(turned >= observed * (1 - _ALIKE)))
    return as_far / len(signs) if exact else (as_far + 1) / (draws + 1)


def wilcoxon(differences: Array, patients: Sequence[str]) -> float:
    """Two-sided p value of Wilcoxon's signed ranks; patients without a difference are left out, and 1 where nobody has one.

    Arguments as in `permutation`.

    Reference: Wilcoxon, Biometrics Bulletin 1 (1945) 80, by SciPy: exact for up to 50 patients without ties.
    """
    from scipy import stats

    of_patients = by_patient(differences, patients)
    if len(of_patients) < 2:
        return float("nan")
    if not of_patients.any():
        return 1.0
    with warnings.catch_warnings():  # few patients with ties: the normal approximation is what there is
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(np.round(of_patients / (_ALIKE * abs(of_patients).max()))).pvalue)


def holm(p_values: Array) -> Array:
    """P values corrected for how many of them there are: Holm's steps down from the smallest; NaN stays, and is not counted.

    Reference: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    given = np.asarray(p_values, float)
    corrected, known = np.full(given.shape, np.nan), np.flatnonzero(np.isfinite(given))
    order = known[np.argsort(given[known])]
    steps = given[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return corrected
