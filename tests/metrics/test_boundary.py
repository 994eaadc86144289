"""Rims of masks, counted by hand; then the paper's erosion where both measure alike."""

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import ConfigError
from medseg.metrics import boundary_iou, iou, scores


def square(start: int, stop: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[start:stop, start:stop] = True
    return mask


def test_rims_by_hand() -> None:
    """The rim of 10x10 pixels has 36, that of the 8x8 within has 28, and they do not touch."""
    assert boundary_iou(square(5, 15), square(6, 14), distance_mm=1) == 0
    assert boundary_iou(square(5, 15), square(6, 14), distance_mm=2) == pytest.approx(28 / (64 + 48 - 28))
    assert iou(square(5, 15), square(6, 14)) == 0.64


@pytest.mark.parametrize("distance_mm", [0, -1, math.nan])
def test_rims_of_no_width_are_refused(distance_mm: float) -> None:
    with pytest.raises(ConfigError, match="the width of the rims, is above 0 mm"):
        boundary_iou(square(5, 15), square(6, 14), distance_mm=distance_mm)


def test_the_distance_is_in_mm() -> None:
    a, b = square(5, 15), square(6, 14)
    assert boundary_iou(a, b, spacing_mm=(0.5, 0.5), distance_mm=1) == boundary_iou(a, b, distance_mm=2)
    deep = np.zeros((12, 12, 12), bool)
    deep[3:9, 3:9, 3:9] = True
    thick = boundary_iou(deep, deep & (np.arange(12) < 8), spacing_mm=(1, 1, 3), distance_mm=1)
    sides = 6 * 20, 5 * 20  # of 3 mm slices only the sides lie within 1 mm of the outside
    assert thick == pytest.approx(sides[1] / sides[0])


def test_a_sheared_grid_is_measured_along_its_axes() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[3:9, 3:9, 3:9] = True
    axes = np.array([[1.0, 0, 0.5], [0, 1, 0], [0, 0, 1]])  # a step along k is 1.12 mm
    assert boundary_iou(mask, mask & (np.arange(12) < 8), spacing_mm=axes, distance_mm=1.1) == pytest.approx(5 / 6)


def test_the_paper_choice_is_a_share_of_the_diagonal() -> None:
    a, b = square(40, 160, 200), square(44, 156, 200)
    assert boundary_iou(a, b) == boundary_iou(a, b, distance_mm=0.02 * math.hypot(200, 200))
    assert boundary_iou(square(5, 15), square(6, 14)) == 0  # of 20 pixels 2 % were no pixel: one counts


def test_the_border_of_the_image_is_outside() -> None:
    whole = np.ones((9, 9), bool)
    inner = np.pad(np.ones((7, 7), bool), 1)
    assert boundary_iou(whole, inner, distance_mm=1) == 0
    assert boundary_iou(whole, whole & ~square(4, 5, 9), distance_mm=1) == pytest.approx(32 / 36)


def test_one_slice_has_a_rim_within_its_plane() -> None:
    a, b = square(5, 15), square(7, 15)
    slices = {"spacing_mm": (1, 1, 5)}
    assert boundary_iou(a[..., None], b[..., None], **slices, distance_mm=2) == boundary_iou(a, b, distance_mm=2)
    assert boundary_iou(a[..., None], b[..., None], **slices) == boundary_iou(a, b) < iou(a, b)
    assert scores(a[..., None], b[..., None], **slices, names=("boundary_iou",)) == {"boundary_iou": boundary_iou(a, b)}


def test_empty_masks_and_single_voxels() -> None:
    empty, one = np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
    one[2, 2, 2] = True
    assert math.isnan(boundary_iou(empty, empty))
    assert boundary_iou(empty, one) == boundary_iou(one, empty) == 0
    assert boundary_iou(one, one) == 1


def test_the_erosion_of_the_paper_agrees_where_distance_and_squares_do() -> None:
    """Within one pixel across faces: a rim is what one erosion by a cross takes away."""
    rng = np.random.default_rng(0)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(40, 30)), 3) > 0 for _ in range(2))
    rims = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    assert boundary_iou(a, b, distance_mm=1) == pytest.approx(iou(*rims))
