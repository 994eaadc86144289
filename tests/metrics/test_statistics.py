import numpy as np
import pytest

from medseg.metrics import statistics

VALUES = np.array([[0.9, np.nan], [0.7, 0.5], [0.8, np.nan]])


def test_what_does_not_exist_is_left_out() -> None:
    np.testing.assert_allclose(statistics.mean(VALUES), (0.8, 0.5))
    np.testing.assert_allclose(statistics.median(VALUES), (0.8, 0.5))
    assert np.isnan(statistics.mean(np.array([np.nan])))


def test_interval_needs_two_patients() -> None:
    draws = statistics.bootstrap(VALUES, ("a", "b", "c"), seed=0)
    assert np.isfinite(draws[:, 0]).all()
    assert np.isnan(draws[:, 1]).all()
    assert np.isnan(statistics.bootstrap(VALUES, ("a", "a", "a"), seed=0)).all()


def test_interval_has_the_normal_width() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = statistics.interval(statistics.bootstrap(values, [str(n) for n in range(400)], seed=1))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high


def test_copies_of_a_case_teach_nothing() -> None:
    """Ten scans of each patient that agree with each other give the interval of one scan each."""
    values = np.random.default_rng(0).normal(size=30)
    patients = [f"p{n}" for n in range(30)]
    once = statistics.bootstrap(values, patients, seed=3)
    often = statistics.bootstrap(np.repeat(values, 10), np.repeat(patients, 10).tolist(), seed=3)
    np.testing.assert_allclose(once, often)


def test_an_interval_is_of_the_labels_that_are_reported() -> None:
    """One patient has the second label: it counts in mean and interval alike, and adds no width."""
    draws, means = statistics.bootstrap(VALUES, ("a", "b", "c"), seed=0), statistics.mean(VALUES)
    overall = statistics.overall(draws, means)
    low, high = statistics.interval(overall)
    assert low <= statistics.mean(means) <= high
    alone = statistics.interval(draws[:, 0])
    np.testing.assert_allclose((low, high), (alone + 0.5) / 2)
    assert np.isnan(statistics.overall(draws[:, 1:], means[1:])).all()


def test_a_label_that_no_case_holds_is_in_neither() -> None:
    values = np.column_stack([VALUES[:, 0], np.full(3, np.nan)])
    draws = statistics.bootstrap(values, ("a", "b", "c"), seed=0)
    np.testing.assert_allclose(statistics.overall(draws, statistics.mean(values)), draws[:, 0])


def test_same_seed_same_draws() -> None:
    one, same, other = (statistics.bootstrap(VALUES[:, 0], ("a", "b", "c"), seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
