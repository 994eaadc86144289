"""Overlap: the worked example of the review, the empty cases, and what must hold for any two masks."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings

from medseg.errors import GeometryError
from medseg.metrics import (
    accuracy,
    balanced_accuracy,
    dice,
    iou,
    kappa,
    mcc,
    precision,
    recall,
    specificity,
    volumetric_similarity,
)

STRUCTURE = (dice, iou, precision, recall, volumetric_similarity)
BACKGROUND = (specificity, accuracy, balanced_accuracy, kappa, mcc)
ALL = (*STRUCTURE, *BACKGROUND)
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
    assert specificity(*masks) == pytest.approx(14 / 15)
    assert accuracy(*masks) == pytest.approx(0.84)
    assert balanced_accuracy(*masks) == pytest.approx((0.7 + 14 / 15) / 2)
    assert volumetric_similarity(*masks) == pytest.approx(1 - 2 / 18)
    by_chance = (8 * 10 + 17 * 15) / 625
    assert kappa(*masks) == pytest.approx((0.84 - by_chance) / (1 - by_chance))
    assert mcc(*masks) == pytest.approx((7 * 14 - 1 * 3) / math.sqrt(8 * 10 * 17 * 15))


@pytest.mark.parametrize(
    ("size", "missed", "invented", "expected"),
    [(14, 1, 0, 26 / 27), (14, 1, 1, 26 / 28), (2, 1, 0, 2 / 3), (2, 1, 1, 2 / 4)],
)
def test_worked_examples_of_dice(size: int, missed: int, invented: int, expected: float) -> None:
    prediction, reference = np.zeros((2, 5, 5), bool)
    reference.flat[:size] = True
    prediction.flat[missed : size + invented] = True
    assert dice(prediction, reference) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ALL)
def test_empty_masks(metric) -> None:
    some, empty, full = np.zeros((3, 3), bool), np.zeros((3, 3), bool), np.ones((3, 3), bool)
    some[1, 1] = True
    assert math.isnan(metric(empty, empty))
    assert metric(some, some) == metric(full, full) == 1


@pytest.mark.parametrize("metric", STRUCTURE)
def test_missed_and_invented_are_the_worst(metric) -> None:
    full, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    assert metric(full, empty) == metric(empty, full) == 0


def test_what_counts_the_background_keeps_its_formula() -> None:
    empty, one = np.zeros((3, 3), bool), np.zeros((3, 3), bool)
    one[0, 0] = True
    assert (specificity(empty, one), accuracy(empty, one), balanced_accuracy(empty, one)) == (1, 8 / 9, 0.5)
    assert (specificity(one, empty), accuracy(one, empty), balanced_accuracy(one, empty)) == (8 / 9, 8 / 9, 4 / 9)
    assert kappa(empty, one) == kappa(one, empty) == mcc(empty, one) == mcc(one, empty) == 0
    assert specificity(one, ~empty) == 1
    assert mcc(one, ~empty) == 0


@pytest.mark.parametrize("metric", [dice, iou])
def test_other_shapes_and_types_are_refused(metric) -> None:
    mask = np.ones((3, 3), bool)
    with pytest.raises(GeometryError, match=r"\(3, 3\) and \(3, 4\)"):
        metric(mask, np.ones((3, 4), bool))
    with pytest.raises(GeometryError, match="boolean"):
        metric(mask, mask.astype(np.uint8))


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, where a class is missing
@pytest.mark.parametrize("share", [0.02, 0.4, 0.9])
def test_scikit_learn_agrees(share: float) -> None:
    from sklearn import metrics as peer

    prediction, reference = np.random.default_rng(0).random((2, 9, 8, 7)) < share
    true, found = reference.ravel(), prediction.ravel()
    assert accuracy(prediction, reference) == pytest.approx(peer.accuracy_score(true, found))
    assert balanced_accuracy(prediction, reference) == pytest.approx(peer.balanced_accuracy_score(true, found))
    assert kappa(prediction, reference) == pytest.approx(peer.cohen_kappa_score(true, found))
    assert mcc(prediction, reference) == pytest.approx(peer.matthews_corrcoef(true, found))
    assert specificity(prediction, reference) == pytest.approx(peer.recall_score(~true, ~found))
    assert (iou(prediction, reference), dice(prediction, reference)) == pytest.approx(
        (peer.jaccard_score(true, found), peer.f1_score(true, found))
    )


def test_simpleitk_agrees() -> None:
    import SimpleITK as sitk

    masks = np.random.default_rng(0).random((2, 6, 7, 8)) > 0.4
    filters = sitk.LabelOverlapMeasuresImageFilter()
    filters.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks))
    assert dice(*masks) == pytest.approx(filters.GetDiceCoefficient())
    assert iou(*masks) == pytest.approx(filters.GetJaccardCoefficient())
    assert precision(*masks) == pytest.approx(1 - filters.GetFalseDiscoveryRate())
    assert recall(*masks) == pytest.approx(1 - filters.GetFalseNegativeError())
    # SimpleITK's similarity is the signed difference of volumes, over their mean.
    assert volumetric_similarity(*masks) == pytest.approx(1 - abs(filters.GetVolumeSimilarity()) / 2)


@settings(deadline=None, max_examples=50)
@given(MASKS)
def test_identities(masks: np.ndarray) -> None:
    a, b = masks
    if not (a | b).any():
        return
    assert dice(a, b) == dice(b, a)
    assert iou(a, b) == pytest.approx(dice(a, b) / (2 - dice(a, b)))
    assert precision(a, b) == recall(b, a)
    for metric in (accuracy, kappa, mcc, volumetric_similarity):
        assert metric(a, b) == metric(b, a)
    assert all(0 <= metric(a, b) <= 1 for metric in (*STRUCTURE, specificity, accuracy, balanced_accuracy))
    assert all(-1 - 1e-12 <= metric(a, b) <= 1 for metric in (kappa, mcc))
    # A prediction no better than chance by one is none by the other.
    assert np.sign(round(kappa(a, b), 9)) == np.sign(round(mcc(a, b), 9))
