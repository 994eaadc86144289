from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.inference.windows import Config, find_air, window_starts

Size = tuple[int, int, int]


@pytest.mark.parametrize(
    ("length", "window", "overlap", "expected"),
    [
        (10, 10, 0.5, (0,)),
        (5, 10, 0.5, (0,)),
        (20, 10, 0.5, (0, 5, 10)),
        (20, 10, 0.0, (0, 10)),
        (21, 10, 0.0, (0, 5, 11)),
        (44, 40, 0.9, (0, 4)),
        (3, 1, 0.9, (0, 1, 2)),
    ],
)
def test_window_starts(length: int, window: int, overlap: float, expected: tuple[int, ...]) -> None:
    assert window_starts(length, window, overlap) == expected


@given(length=st.integers(1, 300), window=st.integers(1, 80), overlap=st.floats(0, 0.95))
@settings(max_examples=100, deadline=None)
def test_windows_cover_evenly_and_overlap_enough(length: int, window: int, overlap: float) -> None:
    starts = window_starts(length, window, overlap)
    gaps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - window)
    if len(starts) > 1:
        assert 0 < gaps.min() <= gaps.max() <= max(1, window * (1 - overlap) + 1e-6)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("window", "batch", "expected"),
    [
        ((96, 96, 96), 5, ((96, 96, 96), 2)),
        ((96, 96, 96), 1, ((48, 96, 96), 1)),
        ((48, 96, 96), 1, ((48, 48, 96), 1)),
        ((80, 40, 40), 1, ((48, 40, 40), 1)),
        ((64, 64, 1), 1, ((32, 64, 1), 1)),
        ((63, 40, 8), 1, None),
    ],
)
def test_what_takes_less_memory(window: Size, batch: int, expected: tuple[Size, int] | None) -> None:
    less = Config(window=window, overlap=0.3, batch=batch).smaller()
    assert (less and (less.window, less.batch)) == expected
    assert less is None or less.overlap == 0.3


@pytest.mark.parametrize(
    ("voxels", "longest", "window", "batch"),
    [
        (8 * 16**3, (200, 200, 200), (32, 32, 32), 1),
        (8 * 16**3, (20, 200, 200), (24, 32, 32), 1),
        (2 * 16**3, (200, 200, 200), (16, 16, 16), 8),
        (1, (200, 200, 200), (16, 16, 16), 8),
        (8 * 16**3, (9, 9, 9), (16, 16, 16), 8),
    ],
    ids=["all sides", "a short scan", "too little for another eight", "less", "nothing to gain"],
)
def test_larger_windows(voxels: float, longest: Size, window: Size, batch: int) -> None:
    larger = Config(window=(16, 16, 16), overlap=0.3, batch=8).larger(voxels, longest)
    assert (larger.window, larger.batch, larger.overlap) == (window, batch, 0.3)


def test_slices_grow_within_their_plane() -> None:
    assert Config(window=(64, 32, 1), batch=4).larger(4 * 64 * 32, (500, 500, 500)).window == (128, 64, 1)


def test_the_cost_counts_every_computed_voxel() -> None:
    config = Config(window=(4, 4, 4), overlap=0.5)
    assert config.cost((4, 4, 4)) == 1
    assert config.cost((2, 4, 4)) == 2
    assert config.cost((8, 8, 8)) == 3**3 / 2**3


def test_air_is_what_no_structure_ever_lay_in() -> None:
    image, target = np.full((1, 16, 8, 8), -2.0), np.zeros((1, 16, 8, 8), int)
    image[:, 8:], image[:, 12], target[:, 13] = 0.0, 4.0, 1  # the windows begin at 0, 4 and 8
    assert find_air((8, 8, 8), [(image, target)]) == (1.0, 2 / 3)  # half way from -2 to 4
    target[:, 1] = 1
    assert find_air((8, 8, 8), [(image, target)]) == (None, 0.0)  # a structure lay in the emptiest window
    assert find_air((8, 8, 8), [(image, np.zeros_like(target))]) == (None, 0.0)  # nothing is known of structures


def test_smaller_windows_know_no_air() -> None:
    config = Config(window=(64, 64, 64), batch=2, air=-1.0)
    fewer = config.smaller()
    assert fewer is not None
    assert fewer.air == -1.0
    smaller = fewer.smaller()
    assert smaller is not None
    assert smaller.air is None
