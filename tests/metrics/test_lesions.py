"""Lesions: pictures that can be counted by hand, both rules of matching, and what must hold for any two masks."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linear_sum_assignment

from medseg.errors import ConfigError
from medseg.extent import components
from medseg.metrics import lesion_dice, lesion_f1, lesion_precision, lesion_recall
from medseg.metrics._matching import Overlaps

ALL = (lesion_f1, lesion_precision, lesion_recall, lesion_dice)


def drawn(*rows: str) -> np.ndarray:
    return np.array([[mark == "#" for mark in row] for row in rows])


def test_two_found_one_missed_one_invented() -> None:
    reference = drawn("##..##..##", "..........", "..........")
    prediction = drawn("##..#.....", "..........", "......##..")
    assert lesion_recall(prediction, reference) == pytest.approx(2 / 3)
    assert lesion_precision(prediction, reference) == pytest.approx(2 / 3)
    assert lesion_f1(prediction, reference) == pytest.approx(4 / 6)
    assert lesion_dice(prediction, reference) == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)


def test_a_piece_over_three_lesions() -> None:
    """One to one it finds one of them; by touch it finds all three."""
    reference, prediction = drawn("##.##.#"), drawn("#######")
    assert lesion_f1(prediction, reference) == pytest.approx(2 / (2 + 0 + 2))
    assert lesion_recall(prediction, reference) == pytest.approx(1 / 3)
    assert lesion_f1(prediction, reference, matching="touch") == 1
    assert lesion_dice(prediction, reference, matching="touch") == pytest.approx((4 / 9 + 4 / 9 + 2 / 8) / 3)


def test_a_lesion_found_in_two_pieces() -> None:
    reference, prediction = drawn("#######"), drawn("###.###")
    assert lesion_precision(prediction, reference) == 0.5
    assert lesion_precision(prediction, reference, matching="touch") == 1
    assert lesion_dice(prediction, reference) == pytest.approx(6 / 10 / 2)  # and one of the halves is invented
    assert lesion_dice(prediction, reference, matching="touch") == pytest.approx(12 / 13)


def test_as_many_pairs_as_can_be() -> None:
    """The middle piece overlaps the left lesion most; but then the right one would go without."""
    reference, prediction = drawn("#####.##"), drawn("#.#####.")
    assert lesion_f1(prediction, reference) == 1


def test_overlap_must_exceed_what_is_asked() -> None:
    reference, prediction = drawn("####...", "......."), drawn("..####.", ".......")  # IoU 2 / 6
    assert lesion_f1(prediction, reference, min_iou=0.3) == 1
    assert lesion_f1(prediction, reference, min_iou=1 / 3) == 0


def test_pieces_hang_together_by_corners() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert components(mask).max() == 2


@pytest.mark.parametrize("metric", ALL)
def test_empty_masks_and_single_voxels(metric) -> None:
    empty, one = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    one[1, 1, 1] = True
    assert math.isnan(metric(empty, empty))
    assert metric(one, empty) == metric(empty, one) == 0
    assert metric(one, one) == 1


def test_another_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="one_to_one or touch, got 'any'"):
        lesion_f1(drawn("#."), drawn("#."), matching="any")


@pytest.mark.parametrize("min_iou", [-0.1, 1, 50, math.nan])
def test_overlaps_that_cannot_be_asked_for(min_iou: float) -> None:
    with pytest.raises(ConfigError, match="0 or more and below 1"):
        lesion_f1(drawn("#."), drawn("#."), min_iou=min_iou)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(bool, (2, 6, 7)))
def test_matching_is_the_best_there_is(masks: np.ndarray) -> None:
    """As many pairs, and as much IoU, as an assignment over the whole table of pieces."""
    overlaps = Overlaps.between(*(components(mask) for mask in masks))
    pairs = overlaps.matched(overlaps.iou > 0)
    worth = np.zeros((len(overlaps.predicted), len(overlaps.true)))
    worth[tuple(overlaps.pairs.T)] = 1 + overlaps.iou / 100
    best = worth[linear_sum_assignment(worth, maximize=True)].sum()
    assert worth[tuple(overlaps.pairs[pairs].T)].sum() == pytest.approx(best)
    assert all(len(np.unique(side)) == len(pairs) for side in overlaps.pairs[pairs].T)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(bool, (2, 5, 4, 3)))
def test_symmetric_and_bounded(masks: np.ndarray) -> None:
    a, b = masks
    if not (a.any() or b.any()):
        return
    for matching in ("one_to_one", "touch"):
        assert lesion_f1(a, b, matching=matching) == pytest.approx(lesion_f1(b, a, matching=matching))
        assert lesion_precision(a, b, matching=matching) == lesion_recall(b, a, matching=matching)
        assert 0 <= lesion_dice(a, b, matching=matching) <= 1
    assert lesion_f1(a, b) <= lesion_f1(a, b, matching="touch")
