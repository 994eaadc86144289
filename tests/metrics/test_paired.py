"""Paired tests: p values that can be counted, then SciPy, and what they promise where nothing differs."""

import math
from functools import partial
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medseg.errors import GeometryError
from medseg.metrics.paired import by_patient, holm, permutation, wilcoxon
from medseg.metrics.statistics import bootstrap


def names(size: int) -> list[str]:
    return [f"p{n}" for n in range(size)]


def test_few_patients_can_be_counted() -> None:
    """Of the 16 turns of signs two are as far from 0 as four positive differences."""
    values = np.array([0.1, 0.2, 0.3, 0.4])
    assert permutation(values, names(4)) == 2 / 16
    assert wilcoxon(values, names(4)) == 2 / 16
    assert permutation(np.array([0.1, -0.2, 0.3, 0.4]), names(4)) == 6 / 16  # 6, 8 and 10 tenths, both ways


@pytest.mark.parametrize("made", [list, tuple, torch.tensor])
def test_lists_and_tensors_are_as_good_as_arrays(made: Any) -> None:
    values = [0.1, -0.2, 0.3, 0.4]
    for test in (permutation, wilcoxon):
        assert test(made(values), names(4)) == test(np.array(values), names(4))
    np.testing.assert_allclose(holm(made([0.1, 0.04])), (0.1, 0.08))


@pytest.mark.parametrize("test", [permutation, wilcoxon, partial(bootstrap, seed=0)])
def test_cases_without_a_patient_are_told(test: Any) -> None:
    with pytest.raises(GeometryError, match=r"every case needs its patient: got numbers \(3,\) and 2 patients"):
        test(np.ones(3), names(2))
    with pytest.raises(GeometryError, match="expected a number a case, got"):
        test(["much", "more"], names(2))


def test_several_labels_at_once_are_told() -> None:
    with pytest.raises(GeometryError, match=r"one number a case, got \(3, 2\)"):
        permutation(np.ones((3, 2)), names(3))


def test_a_patient_counts_once() -> None:
    values = np.array([0.1, 0.3, 0.2, np.nan, 0.5])
    patients = ["a", "a", "b", "c", "d"]
    np.testing.assert_allclose(by_patient(values, patients), (0.2, 0.2, 0.5))
    assert permutation(values, patients) == 2 / 8
    often = permutation(np.repeat(values, 10), np.repeat(patients, 10).tolist())
    assert often == permutation(values, patients)


def test_nothing_known_and_no_difference() -> None:
    for test in (permutation, wilcoxon):
        assert math.isnan(test(np.array([0.3, np.nan]), names(2)))
        assert math.isnan(test(np.array([0.3, 0.2]), ["a", "a"]))
        assert test(np.zeros(30), names(30)) == 1


def test_scipy_agrees() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, 40)
    peer = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20000, vectorized=False, rng=rng
    )
    assert permutation(values, names(40), draws=20000) == pytest.approx(peer.pvalue, abs=0.01)
    assert wilcoxon(values, names(40)) == pytest.approx(stats.wilcoxon(values).pvalue)
    few = values[:10]
    exact = stats.permutation_test((few,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False)
    assert permutation(few, names(10)) == pytest.approx(exact.pvalue)


def test_the_level_is_kept() -> None:
    """Where two runs are alike, one test of twenty is below .05."""
    rng = np.random.default_rng(1)
    found = [permutation(rng.normal(size=20), names(20), seed=n, draws=499) for n in range(400)]
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.08


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, np.nan])), (0.03, 0.06, 0.06, np.nan))
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert holm(np.array([])).size == 0
    assert np.isnan(holm(np.array([np.nan]))).all()


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: np.ndarray) -> None:
    corrected = holm(p_values)
    assert (corrected >= p_values).all()
    assert (corrected <= np.minimum(p_values * len(p_values), 1) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0).all()
