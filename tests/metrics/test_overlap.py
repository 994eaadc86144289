"""Overlap: the worked example of the review, the empty cases, and what must hold for any two masks."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings

from medseg.errors import GeometryError
from medseg.metrics import dice, iou, precision, recall

MASKS = arrays.arrays(bool, (2, 4, 3, 2))


def example() -> tuple[np.ndarray, np.ndarray]:
    """A 5x5 grid with TP 7, FP 1, FN 3, TN 14."""
    prediction, reference = np.zeros(25, bool), np.zeros(25, bool)
    prediction[:8], reference[1:11] = True, True
    return prediction.reshape(5, 5), reference.reshape(5, 5)


def test_worked_example() -> None:
    masks = example()
    assert dice(*masks) == pytest.approx(14 / 18)
    assert iou(*masks) == pytest.approx(7 / 11)
    assert precision(*masks) == pytest.approx(0.875)
    assert recall(*masks) == pytest.approx(0.7)


@pytest.mark.parametrize("metric", [dice, iou, precision, recall])
def test_empty_masks(metric) -> None:
    full, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    assert math.isnan(metric(empty, empty))
    assert metric(full, empty) == 0
    assert metric(empty, full) == 0
    assert metric(full, full) == 1


@pytest.mark.parametrize("metric", [dice, iou])
def test_other_shapes_and_types_are_refused(metric) -> None:
    mask = np.ones((3, 3), bool)
    with pytest.raises(GeometryError, match=r"\(3, 3\) and \(3, 4\)"):
        metric(mask, np.ones((3, 4), bool))
    with pytest.raises(GeometryError, match="boolean"):
        metric(mask, mask.astype(np.uint8))


def test_simpleitk_agrees() -> None:
    import SimpleITK as sitk

    masks = np.random.default_rng(0).random((2, 6, 7, 8)) > 0.4
    filters = sitk.LabelOverlapMeasuresImageFilter()
    filters.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks))
    assert dice(*masks) == pytest.approx(filters.GetDiceCoefficient())
    assert iou(*masks) == pytest.approx(filters.GetJaccardCoefficient())
    assert precision(*masks) == pytest.approx(1 - filters.GetFalseDiscoveryRate())
    assert recall(*masks) == pytest.approx(1 - filters.GetFalseNegativeError())


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_identities(masks: np.ndarray) -> None:
    a, b = masks
    if not (a | b).any():
        return
    assert dice(a, b) == dice(b, a)
    assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))
    assert precision(a, b) == recall(b, a)
