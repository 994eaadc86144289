"""What holds for every metric of two masks: being listed means being tested."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg import metrics
from medseg.errors import ConfigError, GeometryError

BEST = {  # value of a mask compared with itself
    **dict.fromkeys(
        ["dice", "iou", "precision", "recall", "specificity", "accuracy", "balanced_accuracy", "kappa", "mcc"], 1
    ),
    **dict.fromkeys(["volumetric_similarity", "nsd", "boundary_iou", "cl_dice"], 1),
    **dict.fromkeys(["lesion_f1", "lesion_precision", "lesion_recall", "lesion_dice"], 1),
    **dict.fromkeys(["hausdorff", "assd", "masd", "betti_error", "relative_volume_error", "volume_error_ml"], 0),
}
SYMMETRIC = "dice iou accuracy kappa mcc volumetric_similarity nsd boundary_iou cl_dice lesion_f1 hausdorff assd masd betti_error"
OF_MAPS = "confusion_matrix pixel_accuracy mean_pixel_accuracy mean_iou frequency_weighted_iou average_precision panoptic_quality"
OTHERS = "expected_calibration_error brier reliability_curve staple inter_rater_dice betti_numbers volume_ml evaluate scores pick asked"
SPACING = (0.7, 1.0, 2.5)
# Thinning depends on the order in which voxels are looked at.
TURNED = [name for name in BEST if name != "cl_dice"]


def blobs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(18, 15, 12)), 1.5) for _ in range(2))
    return a > 0.05, a + 0.5 * b > 0.05


def value(name: str, *masks: Any, spacing: tuple[float, ...] = SPACING) -> float:
    found = getattr(metrics, name)(*masks, spacing_mm=spacing)
    assert type(found) is float
    return float(found)


def test_every_metric_is_tested() -> None:
    upper = {"MAPS", "MEASURES", "NAMES", "ScanScores", "USUAL"}
    assert {*BEST, *OF_MAPS.split(), *OTHERS.split()} | upper == set(metrics.__all__)
    assert all(callable(getattr(metrics, name)) for name in set(metrics.__all__) - upper)


@pytest.mark.parametrize("name", BEST)
def test_the_same_of_tensors_and_of_any_order_of_memory(name: str) -> None:
    a, b = blobs()
    expected = value(name, a, b)
    assert value(name, torch.from_numpy(a), torch.from_numpy(b)) == expected
    assert value(name, np.asfortranarray(a), np.asfortranarray(b)) == pytest.approx(expected)
    assert value(name, a, torch.from_numpy(b)) == expected


@pytest.mark.parametrize("name", TURNED)
def test_flips_and_turns_change_nothing(name: str) -> None:
    a, b = blobs()
    expected = value(name, a, b)
    for axis in range(3):
        assert value(name, np.flip(a, axis), np.flip(b, axis)) == pytest.approx(expected)
    for order in ((1, 2, 0), (0, 2, 1)):
        turned = value(name, a.transpose(order), b.transpose(order), spacing=tuple(SPACING[axis] for axis in order))
        assert turned == pytest.approx(expected)


# What lies far from the structures counts for what looks at the background, and for a share of the diagonal.
FAR = ("specificity", "accuracy", "balanced_accuracy", "kappa", "mcc", "boundary_iou")


@pytest.mark.parametrize("name", [name for name in BEST if name not in FAR])
def test_more_background_changes_nothing(name: str) -> None:
    a, b = (np.pad(mask, ((3, 0), (0, 5), (1, 2))) for mask in blobs())
    assert value(name, a, b) == pytest.approx(value(name, *(np.pad(mask, 1) for mask in blobs())))


@pytest.mark.parametrize("name", BEST)
@settings(deadline=None, max_examples=15)
@given(masks=arrays.arrays(bool, st.sampled_from([(2, 4, 4, 3), (2, 5, 4)])))
def test_bounds_symmetry_and_the_best(name: str, masks: np.ndarray) -> None:
    a, b = masks
    given_ = {"spacing": SPACING[: a.ndim]}
    forth, back, same = value(name, a, b, **given_), value(name, b, a, **given_), value(name, b, b, **given_)
    if not (a.any() or b.any()):
        assert math.isnan(forth)
        return
    if name in SYMMETRIC.split():
        assert forth == pytest.approx(back)
    if BEST[name]:
        assert -1 - 1e-9 <= forth <= 1 + 1e-9
    elif "volume" not in name:
        assert forth >= 0
    assert math.isnan(same) if not b.any() else same == pytest.approx(BEST[name], abs=1e-9)
    assert not math.isnan(forth) or (name == "relative_volume_error" and not b.any())


@pytest.mark.parametrize("name", OF_MAPS.split())
def test_maps_of_tensors_and_turned_maps(name: str) -> None:
    prediction, reference = np.random.default_rng(1).integers(0, 4, (2, 6, 5, 4))
    metric = partial(getattr(metrics, name), spacing_mm=SPACING)
    expected = metric(prediction, reference)
    assert np.array_equal(metric(torch.from_numpy(prediction), torch.from_numpy(reference)), expected)
    assert np.array_equal(metric(prediction.transpose(2, 0, 1), reference.transpose(2, 0, 1)), expected)
    assert np.array_equal(metric(np.flip(prediction, 1), np.flip(reference, 1)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", BEST)
def test_tensors_on_a_gpu(name: str) -> None:
    a, b = blobs()
    assert value(name, *(torch.from_numpy(mask).cuda() for mask in (a, b))) == value(name, a, b)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            lambda m: metrics.boundary_iou(m, m, distance_mm="1"),
            "distance_mm, the width of the rims, is above 0 mm, got '1'",
        ),
        (lambda m: metrics.lesion_f1(m, m, min_iou="a"), "min_iou, .*, got 'a'"),
        (lambda m: metrics.hausdorff(m, m, diagonal_mm=[1]), r"diagonal_mm, .*, got \[1\]"),
        (lambda m: metrics.expected_calibration_error(m, m, bins=2.5), "bins: 1 to 1000000 are needed, got 2.5"),
        (
            lambda m: metrics.expected_calibration_error(m, m, bins=10**9),
            "bins: 1 to 1000000 are needed, got 1000000000",
        ),
        (lambda m: metrics.evaluate(m, m, labels=1), "labels: expected names and values, or a list of values, got 1"),
        (lambda m: metrics.evaluate(m, m, labels=None), "labels: expected names and values, or a list of values"),
        (lambda m: metrics.evaluate(m, m, labels=(10**20,)), "labels: 1.* is no whole number"),
        (lambda m: metrics.evaluate(m, m, (1,), names=None), "metrics: expected names, such as dice,hd95_mm, got None"),
        (lambda m: metrics.evaluate(m, m, (1,), names=3), "metrics: expected names, such as dice,hd95_mm, got 3"),
        (lambda m: metrics.average_precision(m, m, thresholds="a"), "thresholds of IoU lie above 0 .*, got 'a'"),
        (lambda m: metrics.average_precision(m, m, thresholds=None), "thresholds of IoU lie above 0 .*, got None"),
        (lambda m: metrics.average_precision(m, m, scores=[0.5]), r"scores are numbers by the numbers .*, got \[0.5\]"),
        (lambda m: metrics.panoptic_quality(m, m, classes=m), "classes are two maps, .*, got array"),
        (lambda m: metrics.panoptic_quality(m, m, classes=(m,)), r"classes are two maps, .*, got \(array"),
        (lambda m: metrics.mean_iou(m, m, labels=1), "labels are whole numbers, one a class, got 1"),
        (lambda m: metrics.mean_iou(m, m, labels=(0.5, 1)), r"labels are whole numbers, one a class, got \(0.5, 1\)"),
        (lambda m: metrics.mean_iou(m, m, ignore=[254, 255]), r"ignore is one value, a whole number, got \[254, 255\]"),
        (lambda m: metrics.brier(m, m, ignore=[254, 255]), r"ignore is one value, a whole number, got \[254, 255\]"),
    ],
)
def test_options_of_a_wrong_kind_are_told(asked: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(np.ones((4, 4, 4), bool))


@pytest.mark.parametrize(
    "odd", [[[1, 0], [1]], torch.zeros(4, 4, 4).bool().to_sparse(), torch.zeros(4, 4, 4, device="meta").bool()]
)
@pytest.mark.parametrize("measure", [metrics.dice, metrics.mean_iou, metrics.brier, metrics.panoptic_quality])
def test_what_is_no_array_is_told(measure: Callable[[Any, Any], Any], odd: Any) -> None:
    with pytest.raises(GeometryError, match="expected an array or a dense tensor, got"):
        measure(odd, np.ones((4, 4, 4), bool))


@pytest.mark.parametrize("kind", [object, complex, str])
def test_probabilities_are_numbers(kind: type) -> None:
    with pytest.raises(GeometryError, match="probabilities and a reference are numbers, got"):
        metrics.brier(np.ones((4, 4)).astype(kind), np.ones((4, 4), bool))
