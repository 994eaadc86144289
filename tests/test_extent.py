from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.extent import bounding_box, components, profiles


def test_box() -> None:
    mask = np.zeros((6, 7, 8), bool)
    assert mask[bounding_box(mask, margin=2)].size == 0
    mask[1, 2:4, 7] = True
    assert bounding_box(mask) == (slice(1, 2), slice(2, 4), slice(7, 8))
    assert bounding_box(mask, margin=2) == (slice(0, 4), slice(0, 6), slice(5, 8))


def test_profiles_have_one_value_a_slice_of_each_axis() -> None:
    mask = np.zeros((2, 3, 4), bool)
    mask[1, 1:, 3] = True
    assert [p.tolist() for p in profiles(mask, np.sum)] == [[0, 2], [0, 1, 1], [0, 0, 0, 2]]
    assert [p.tolist() for p in profiles(mask[1])] == [[False, True, True], [False, False, False, True]]


def test_pieces_hang_together_by_corners_or_by_faces_alone() -> None:
    diagonal = np.eye(3, dtype=bool)
    assert components(diagonal).max() == 1
    assert components(diagonal, faces=True).max() == 3
    assert components(np.zeros((0, 3, 2), bool)).shape == (0, 3, 2)


@pytest.mark.parametrize("shape", [(1, 1, 9), (9, 1, 1), (1, 7, 1), (1, 9), (3, 5, 7)])
def test_pieces_of_odd_shapes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random(shape) < 0.5
        found, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        assert components(mask).max() == count
        assert len(np.unique(np.stack([components(mask), found], -1)[mask], axis=0)) == count
