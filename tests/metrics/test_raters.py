"""Raters: the step of expectation and maximisation again, and cases that need none."""

import math
from typing import Any

import numpy as np
import pytest

from medseg.errors import ConfigError, DataError
from medseg.metrics import dice, inter_rater_dice, staple


def raters() -> list[np.ndarray]:
    """A square, drawn by two careful raters and by one who moves it."""
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    first, second = truth.copy(), truth.copy()
    first[5, 5:9], second[14, 9:15] = False, False
    return [first, second, np.roll(truth, 4, axis=0)]


def test_the_careful_ones_decide() -> None:
    found = staple(raters())
    assert found.probability.shape == (20, 20)
    assert dice(found.consensus, np.sum(raters(), axis=0) > 1) == 1
    assert min(found.sensitivity[:2]) > 0.9 > found.sensitivity[2]
    assert min(found.specificity[:2]) > found.specificity[2]


def test_another_step_changes_nothing() -> None:
    """What was found is a fixed point of equations 12, 19 and 20 of the paper, with the prior that ITK takes."""
    given, found = np.stack(raters()), staple(raters(), iterations=5000)
    sensitivity, specificity = (np.array(each)[:, None, None] for each in (found.sensitivity, found.specificity))
    prior = given.mean()
    inside = prior * np.prod(np.where(given, sensitivity, 1 - sensitivity), axis=0)
    outside = (1 - prior) * np.prod(np.where(given, 1 - specificity, specificity), axis=0)
    weight = inside / (inside + outside)
    np.testing.assert_allclose(weight, found.probability, atol=1e-4)
    np.testing.assert_allclose((given * weight).sum((1, 2)) / weight.sum(), found.sensitivity, atol=1e-4)
    np.testing.assert_allclose((~given * (1 - weight)).sum((1, 2)) / (1 - weight).sum(), found.specificity, atol=1e-4)


def test_all_alike_and_all_empty() -> None:
    same = [raters()[0]] * 3
    assert dice(staple(same).consensus, same[0]) == 1
    empty = [np.zeros((4, 4, 4), bool)] * 2
    assert not staple(empty).consensus.any()
    assert math.isnan(staple(empty).sensitivity[0])
    assert staple(empty).specificity == (1, 1)
    assert staple([~mask for mask in empty]).consensus.all()


def test_inter_rater_dice() -> None:
    first, second, third = raters()
    pairs = dice(first, second), dice(first, third), dice(second, third)
    assert inter_rater_dice(raters()) == pytest.approx(sum(pairs) / 3)
    empty = np.zeros_like(first)
    assert inter_rater_dice([first, empty]) == 0
    assert inter_rater_dice([first, first, empty]) == pytest.approx(1 / 3)
    assert math.isnan(inter_rater_dice([empty, empty]))


def test_one_rater_agrees_with_nobody() -> None:
    for metric in (staple, inter_rater_dice):
        with pytest.raises(DataError, match="two raters at least, got 1"):
            metric([raters()[0]])


@pytest.mark.parametrize("masks", [None, 3, np.array(True)])
@pytest.mark.parametrize("measure", [staple, inter_rater_dice])
def test_what_is_no_list_of_masks_is_refused(measure: Any, masks: Any) -> None:
    with pytest.raises(DataError, match="a list of the masks of two raters at least, got"):
        measure(masks)


@pytest.mark.parametrize("iterations", [0, -1, 1.5, "many", 2**40])
def test_iterations_are_counted_from_one_on(iterations: Any) -> None:
    with pytest.raises(ConfigError, match="iterations: a whole number above 0 is needed"):
        staple(raters(), iterations=iterations)
