"""Calibration: values by hand, then scikit-learn and MONAI."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import ConfigError, GeometryError
from medseg.metrics import brier, expected_calibration_error, reliability_curve

FOREGROUND = np.array([[0.1, 0.1, 0.9, 0.9]])
TRUE = np.array([[False, True, True, True]])


def test_by_hand() -> None:
    curve = reliability_curve(FOREGROUND, TRUE, bins=2)
    np.testing.assert_allclose(curve, ((0.1, 0.9), (0.5, 1), (2, 2)))
    assert expected_calibration_error(FOREGROUND, TRUE, bins=2) == pytest.approx((0.4 + 0.1) / 2)
    assert brier(FOREGROUND, TRUE) == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)


def test_probabilities_of_half_precision() -> None:
    halves = torch.tensor(FOREGROUND).bfloat16()
    assert brier(halves, torch.tensor(TRUE)) == pytest.approx(brier(FOREGROUND, TRUE), abs=1e-2)


def test_classes_by_hand() -> None:
    """Sure of class 1 with .6 and right; sure of class 2 with .8 and wrong."""
    probabilities = np.array([[0.3, 0.1], [0.6, 0.1], [0.1, 0.8]])[:, None]
    reference = np.array([[1, 0]])
    assert expected_calibration_error(probabilities, reference, bins=10) == pytest.approx((0.4 + 0.8) / 2)
    assert brier(probabilities, reference) == pytest.approx((0.09 + 0.16 + 0.01 + 0.81 + 0.01 + 0.64) / 2)


def test_a_value_on_an_edge_belongs_below_and_the_ends_to_theirs() -> None:
    values = np.array([[0.0, 0.5, 1.0]])
    assert reliability_curve(values, np.ones((1, 3), bool), bins=2).voxels.tolist() == [2, 1]


def test_empty_bins_masks_and_voxels_to_ignore() -> None:
    assert np.isnan(reliability_curve(FOREGROUND, TRUE, bins=3).frequency[1])
    assert expected_calibration_error(FOREGROUND, np.zeros_like(TRUE), bins=2) == pytest.approx(0.5)
    assert brier(np.zeros((2, 2)), np.zeros((2, 2), bool)) == 0
    marked = np.array([[0, 255, 1, 1]], np.uint8)
    assert expected_calibration_error(FOREGROUND, marked, ignore=255, bins=2) == pytest.approx(0.1)
    nothing = np.full((1, 4), 255, np.uint8)
    assert math.isnan(brier(FOREGROUND, nothing, ignore=255))
    assert math.isnan(expected_calibration_error(FOREGROUND, nothing, ignore=255))


def test_what_cannot_be_measured() -> None:
    with pytest.raises(GeometryError, match=r"\(2, 4\) do not fit a reference \(1, 4\)"):
        brier(np.ones((2, 4)), TRUE)
    with pytest.raises(GeometryError, match=r"between 0 and 1, got -3 to 0\.9"):
        brier(np.where(FOREGROUND < 0.5, -3, FOREGROUND), TRUE)
    with pytest.raises(GeometryError, match="holds 0 to 2, the probabilities are of classes 0 to 1"):
        brier(FOREGROUND, TRUE * 2)
    with pytest.raises(GeometryError, match="between 0 and 1, got NaN"):
        brier(np.where(FOREGROUND < 0.5, math.nan, FOREGROUND), TRUE)
    with pytest.raises(GeometryError, match="whole numbers or booleans, got fractions"):
        brier(FOREGROUND, TRUE * 0.5)
    with pytest.raises(ConfigError, match="bins: 1 to 1000000 are needed, got 0"):
        expected_calibration_error(FOREGROUND, TRUE, bins=0)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float16, np.float32])
def test_masks_and_whole_numbers_are_probabilities_too(kind: type) -> None:
    sure = np.array([[0, 1, 1, 0]]).astype(kind)
    for reference in (TRUE, TRUE.astype(np.uint8), TRUE.astype(np.float32)):
        assert brier(sure, reference) == expected_calibration_error(sure, reference) == 0.25
        assert brier(np.stack([1 - sure.astype(int), sure]).astype(kind), reference) == 0.5


def test_what_is_above_one_by_rounding_is_one() -> None:
    assert brier(np.array([[1 + 1e-7, -1e-9]]), np.array([[True, False]])) == pytest.approx(0)


def test_half_precision_is_measured_in_single_precision() -> None:
    halves = np.full((1, 4), 0.1, np.float16)
    assert brier(halves, TRUE) == pytest.approx((0.1**2 + 3 * 0.9**2) / 4, rel=2e-4)
    assert brier(halves, TRUE) == pytest.approx(brier(halves.astype(np.float64), TRUE), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.float64, (3, 5, 4), elements=st.floats(0, 1)), arrays.arrays(bool, (3, 5, 4)))
def test_scikit_learn_agrees(probabilities: np.ndarray, true: np.ndarray) -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    assert brier(probabilities, true) == pytest.approx(
        brier_score_loss(true.ravel(), probabilities.ravel(), labels=[0, 1])
    )
    if not true.any() or true.all():
        return  # scikit-learn wants both classes
    frequency, confidence = calibration_curve(true.ravel(), probabilities.ravel(), n_bins=10)
    curve = reliability_curve(probabilities, true, bins=10)
    np.testing.assert_allclose(curve.frequency[curve.voxels > 0], frequency)
    np.testing.assert_allclose(curve.confidence[curve.voxels > 0], confidence)


@pytest.mark.filterwarnings("ignore")  # theirs
def test_monai_agrees() -> None:
    import torch
    from monai.metrics import calibration_binning

    rng = np.random.default_rng(0)
    p, true = rng.random((12, 11, 10)).astype(np.float32), rng.random((12, 11, 10)) < 0.3
    curve = reliability_curve(torch.from_numpy(p), torch.from_numpy(true), bins=20)
    given_ = torch.from_numpy(p)[None, None], torch.from_numpy(true)[None, None].float()
    confidence, frequency, voxels = (found[0, 0].numpy() for found in calibration_binning(*given_, num_bins=20))
    np.testing.assert_allclose(curve.confidence, confidence, rtol=1e-5)
    np.testing.assert_allclose(curve.frequency, frequency, rtol=1e-5)
    np.testing.assert_array_equal(curve.voxels, voxels)
