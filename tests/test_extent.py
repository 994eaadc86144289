from __future__ import annotations

import numpy as np

from medseg.extent import bounding_box, profiles


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
