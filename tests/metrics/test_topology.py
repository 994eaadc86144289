"""Topology: bodies of known shape, the formula of Euler by another way, and the centre lines of the authors' program."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from medseg.errors import ConfigError
from medseg.metrics import betti_error, betti_numbers, cl_dice


def hollow(shape: tuple[int, ...] = (9, 9, 9)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[2:7, 2:7, 2:7] = True
    mask[4, 4, 4] = False
    return mask


def ring() -> np.ndarray:
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 4] = True
    mask[3:6, 3:6, 4] = False
    return mask


def test_bodies_of_known_shape() -> None:
    assert betti_numbers(np.ones((3, 3, 3), bool)) == (1, 0, 0)
    assert betti_numbers(np.zeros((3, 3, 3), bool)) == (0, 0, 0)
    assert betti_numbers(hollow()) == (1, 0, 1)
    assert betti_numbers(ring()) == (1, 1, 0)
    assert betti_numbers(ring()[..., 4]) == (1, 1)
    assert betti_numbers(ring()[..., 4:5]) == (1, 1, 0)
    crossed = ring() | ring().transpose(2, 0, 1)  # two rings that share two edges
    assert betti_numbers(crossed) == (1, 3, 0)


def test_corners_join_a_structure_and_not_its_background() -> None:
    diagonal = np.eye(4, dtype=bool)
    assert betti_numbers(diagonal) == (1, 0)
    assert betti_numbers(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)) == (1, 1)


def test_errors_by_dimension() -> None:
    assert betti_error(hollow(), ring()) == 2
    assert [betti_error(hollow(), ring(), dimension=n) for n in range(3)] == [0, 1, 1]
    two = np.concatenate([ring(), ring()])
    assert betti_error(two, np.concatenate([ring(), np.zeros_like(ring())])) == 2


@pytest.mark.parametrize(("dimension", "mask"), [(3, ring()), (-1, ring()), (2, ring()[..., 4])])
def test_dimensions_that_a_mask_has_not(dimension: int, mask: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="or None for all, got"):
        betti_error(mask, mask, dimension=dimension)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(bool, (4, 4, 3)))
def test_the_rank_of_cubical_homology_agrees(mask: np.ndarray) -> None:
    """Betti numbers again, from the ranks of the boundary operators of the cubes, faces, edges and vertices."""
    cells: list[set[tuple[int, ...]]] = [set() for _ in range(4)]
    for voxel in np.argwhere(mask):
        for offset in np.ndindex(3, 3, 3):  # in half steps, odd coordinates run along an axis
            cell = tuple((2 * voxel + offset).tolist())
            cells[sum(c % 2 for c in cell)].add(cell)
    order = [{cell: n for n, cell in enumerate(sorted(some))} for some in cells]
    ranks = [0, 0, 0, 0, 0]
    for dimension in (1, 2, 3):
        boundary = np.zeros((len(order[dimension - 1]), len(order[dimension])))
        for cell, column in order[dimension].items():
            sign = 1
            for axis in (a for a in range(3) if cell[a] % 2):
                for side in (-1, 1):
                    face = (*cell[:axis], cell[axis] + side, *cell[axis + 1 :])
                    boundary[order[dimension - 1][face], column] = sign * side
                sign = -sign
        ranks[dimension] = int(np.linalg.matrix_rank(boundary)) if boundary.size else 0
    assert betti_numbers(mask) == tuple(len(order[n]) - ranks[n] - ranks[n + 1] for n in range(3))


@pytest.mark.parametrize("metric", [betti_error, cl_dice])
def test_empty_masks_and_single_voxels(metric) -> None:
    empty, one = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    one[1, 1, 1] = True
    assert math.isnan(metric(empty, empty))
    assert metric(one, empty) == metric(empty, one) == (1 if metric is betti_error else 0)
    assert metric(one, one) == (0 if metric is betti_error else 1)


def test_a_line_and_half_of_it() -> None:
    line, half = np.zeros((2, 9, 9, 20), bool)
    line[4, 4, 2:18] = half[4, 4, 2:10] = True
    assert cl_dice(half, line) == pytest.approx(2 * 1 * 0.5 / 1.5)
    thick = ndimage.binary_dilation(line)
    assert cl_dice(thick, line) == 1  # however thick, the line is covered, and the other one's middle is it
    assert cl_dice(np.roll(line, 3, 0), line) == 0


def test_what_thinning_leaves_nothing_of_keeps_a_voxel() -> None:
    i, j, k = np.indices((24, 28, 20))
    ball = ((i - 12) / 9) ** 2 + ((j - 14) / 11) ** 2 + ((k - 10) / 7.5) ** 2 < 1
    assert cl_dice(ball, ball) == 1
    assert 0 <= cl_dice(ball, np.roll(ball, 9, 0)) <= 1


@pytest.mark.parametrize("shape", [(40, 50), (24, 28, 20)])
def test_the_program_of_the_authors_agrees(shape: tuple[int, ...]) -> None:
    from skimage.morphology import skeletonize

    rng = np.random.default_rng(3)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    reference = abs(field) < 0.3 * field.std()
    prediction = abs(field + 0.1 * field.std()) < 0.3 * field.std()
    p, r = skeletonize(prediction) > 0, skeletonize(reference) > 0
    precision, recall = (p & reference).sum() / p.sum(), (r & prediction).sum() / r.sum()
    assert cl_dice(prediction, reference) == pytest.approx(2 * precision * recall / (precision + recall))
