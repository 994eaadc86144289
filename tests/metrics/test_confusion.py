"""Maps of classes: the worked example of the review, classes that are missing, scikit-learn and SimpleITK."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import GeometryError
from medseg.metrics import (
    confusion_matrix,
    frequency_weighted_iou,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
)

MEANS = (pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou)


def example() -> tuple[np.ndarray, np.ndarray]:
    """A 5x5 grid with TP 7, FP 1, FN 3, TN 14."""
    prediction, reference = np.zeros(25, np.uint8), np.zeros(25, np.uint8)
    prediction[:8], reference[1:11] = 1, 1
    return prediction.reshape(5, 5), reference.reshape(5, 5)


def test_worked_example() -> None:
    maps = example()
    assert confusion_matrix(*maps).tolist() == [[14, 1], [3, 7]]
    assert pixel_accuracy(*maps) == pytest.approx(0.84)
    assert mean_pixel_accuracy(*maps) == pytest.approx(0.8167, abs=5e-5)
    assert mean_iou(*maps) == pytest.approx(0.7071, abs=5e-5)
    assert frequency_weighted_iou(*maps) == pytest.approx((15 * 14 / 18 + 10 * 7 / 11) / 25)


def test_classes_that_a_map_lacks() -> None:
    reference = np.array([[0, 0, 1, 1]])
    invented, missed = np.array([[0, 2, 1, 1]]), np.array([[0, 0, 0, 1]])
    assert mean_iou(invented, reference) == pytest.approx((0.5 + 1 + 0) / 3)
    assert mean_pixel_accuracy(invented, reference) == pytest.approx((0.5 + 1) / 2)
    assert mean_iou(missed - missed, reference) == pytest.approx((0.5 + 0) / 2)
    assert mean_pixel_accuracy(missed - missed, reference) == 0.5
    assert mean_iou(reference, reference, labels=(0, 1, 7)) == 1
    assert confusion_matrix(reference, reference, labels=(7, 1, 0)).tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_nothing_to_count_and_nothing_but_background() -> None:
    empty = np.zeros((3, 4), np.int16)
    assert all(metric(empty, empty) == 1 for metric in MEANS)
    assert all(math.isnan(metric(empty, empty, ignore=0)) for metric in MEANS)
    assert confusion_matrix(empty, empty, ignore=0).shape == (0, 0)


def test_ignored_voxels_are_not_counted() -> None:
    reference, prediction = np.array([[0, 1, 255]], np.uint8), np.array([[0, 1, 1]], np.uint8)
    assert pixel_accuracy(prediction, reference, ignore=255) == 1
    assert pixel_accuracy(prediction, reference) == pytest.approx(2 / 3)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(GeometryError, match=r"hold \[2\], which is none of the labels \[0, 1\]"):
        mean_iou(np.array([[2, 0]]), np.array([[1, 0]]), labels=(0, 1))
    with pytest.raises(GeometryError, match="whole numbers, got float64"):
        mean_iou(np.ones((2, 2)), np.ones((2, 2), int))
    with pytest.raises(GeometryError, match="of one shape"):
        mean_iou(np.ones((2, 2), int), np.ones((2, 3), int))


VALUES = st.sampled_from([np.uint8, np.int8, np.int16, np.int64]).flatmap(
    lambda kind: arrays.arrays(kind, (2, 3, 4, 2), elements=st.sampled_from([0, 1, 3, 100]))
)


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, where there is one class
@settings(deadline=None, max_examples=40)
@given(VALUES, st.sampled_from([1, 1_000_000]))
def test_scikit_learn_agrees(maps: np.ndarray, scale: int) -> None:
    """Large numbers, too far apart for a table, are found by searching."""
    from sklearn import metrics as peer

    prediction, reference = maps.astype(np.int64) * scale if scale > 1 else maps
    found = confusion_matrix(prediction, reference)
    assert np.array_equal(found, peer.confusion_matrix(reference.ravel(), prediction.ravel()))
    assert np.array_equal(found.T, confusion_matrix(reference, prediction))
    assert pixel_accuracy(prediction, reference) == pytest.approx(
        peer.accuracy_score(reference.ravel(), prediction.ravel())
    )
    classes = np.union1d(prediction, reference)
    mean = peer.jaccard_score(reference.ravel(), prediction.ravel(), labels=classes, average="macro")
    weighted = peer.jaccard_score(reference.ravel(), prediction.ravel(), labels=classes, average="weighted")
    assert mean_iou(prediction, reference) == pytest.approx(mean)
    assert frequency_weighted_iou(prediction, reference) == pytest.approx(weighted)


def test_simpleitk_agrees() -> None:
    import SimpleITK as sitk

    prediction, reference = np.random.default_rng(0).integers(0, 4, (2, 6, 7, 8)).astype(np.uint8)
    filters = sitk.LabelOverlapMeasuresImageFilter()
    filters.Execute(*(sitk.GetImageFromArray(array) for array in (prediction, reference)))
    matrix = confusion_matrix(prediction, reference)
    for label in (1, 2, 3):
        iou = matrix[label, label] / (matrix[label].sum() + matrix[:, label].sum() - matrix[label, label])
        assert iou == pytest.approx(filters.GetJaccardCoefficient(label))
