from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.sample import Config, Sampler, cut, points_by_class

PATCH = (16, 12, 8)


def sampler(foreground: float = 0.5, seed: int = 0) -> Sampler:
    rare = np.array([[20, 21, 22]])
    common = np.array([[5, 6, 7], [30, 31, 32], [39, 39, 39]])
    shapes = [(40, 40, 40), (40, 40, 40), (10, 40, 5)]
    return Sampler(
        shapes, [{1: common}, {1: common, 2: rare}, {}], Config(patch=PATCH, foreground=foreground), seed=seed
    )


def test_a_cut_depends_on_seed_step_and_index_alone() -> None:
    forwards = [sampler().draw(3, index) for index in range(20)]
    assert [sampler().draw(3, index) for index in reversed(range(20))] == forwards[::-1]
    assert forwards != [sampler(seed=1).draw(3, index) for index in range(20)]
    assert len(set(forwards)) > 10


def test_every_class_is_drawn_equally_often_however_rare() -> None:
    """Class 2 has one voxel in one case; class 1 has six in two."""
    cuts = [sampler(foreground=1).draw(0, index) for index in range(400)]
    assert all(c.case != 2 for c in cuts)
    assert 0.7 < Counter(c.case for c in cuts)[1] / 400 < 0.8  # half of class 1, and all of class 2


def test_a_foreground_patch_holds_its_point_in_its_central_half() -> None:
    only = Sampler([(64, 64, 64)], [{1: np.array([[30, 31, 32]])}], Config(patch=PATCH, foreground=1))
    inside = np.array([30, 31, 32]) - [only.draw(0, index).start_ijk for index in range(300)]
    assert (inside.min(0) == np.array(PATCH) // 4).all()
    assert (inside.max(0) == np.array(PATCH) - np.array(PATCH) // 4 - 1).all()


def test_patches_stay_inside_the_scan_or_the_scan_inside_the_patch() -> None:
    for index in range(200):
        case, start = sampler().draw(1, index)
        for first, size, length in zip(start, PATCH, sampler().shapes[case], strict=True):
            assert min(length - size, 0) <= first <= max(length - size, 0)


def test_positions_without_foreground_are_uniform() -> None:
    empty = Sampler([(20, 20, 20)], [{}], Config(patch=(16, 16, 16), foreground=1))
    starts = np.array([empty.draw(0, index).start_ijk for index in range(500)])
    assert set(starts[:, 0]) == {0, 1, 2, 3, 4}
    assert starts.mean(0) == pytest.approx([2, 2, 2], abs=0.2)


def test_foreground_share() -> None:
    """The structure lies in a corner, where hardly any uniform patch reaches."""
    corner = Sampler([(99, 99, 99)], [{1: np.array([[0, 0, 0]])}], Config(patch=(9, 9, 9), foreground=0.3))
    hits = sum(corner.draw(0, index).start_ijk == (0, 0, 0) for index in range(1000))
    assert 250 < hits < 350


def test_points_by_class_of_exclusive_labels() -> None:
    classes = np.zeros((1, 4, 5, 6), np.int16)
    classes[0, 1, 2, 3], classes[0, 3, 4, 5], classes[0, 0] = 7, 2, -1
    found = points_by_class(classes)
    assert {key: points.tolist() for key, points in found.items()} == {2: [[3, 4, 5]], 7: [[1, 2, 3]]}


def test_points_by_class_of_overlapping_labels() -> None:
    classes = np.zeros((3, 4, 5, 6), np.int16)
    classes[0, 1, 1, 1] = classes[2, 1, 1, 1] = 1
    assert {key: points.tolist() for key, points in points_by_class(classes).items()} == {
        1: [[1, 1, 1]],
        3: [[1, 1, 1]],
    }


def test_points_by_class_keeps_a_repeatable_part_of_many() -> None:
    classes = np.ones((1, 10, 10, 10), np.int16)
    points = points_by_class(classes, n_max=50, seed=4)[1]
    assert len(np.unique(points, axis=0)) == 50
    assert np.array_equal(points, points_by_class(classes, n_max=50, seed=4)[1])
    assert points_by_class(np.zeros_like(classes)) == {}


corner = st.tuples(*[st.integers(-9, 9)] * 3)
box = st.tuples(*[st.integers(1, 7)] * 3)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@given(start=corner, size=box)
@settings(max_examples=60, deadline=None)
def test_cut_equals_padding_and_slicing(kind: Any, start: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    array = np.arange(2 * 4 * 5 * 6, dtype=np.int16).reshape(2, 4, 5, 6)
    padded = np.pad(array, [(0, 0), (20, 20), (20, 20), (20, 20)])
    expected = padded[(slice(None), *(slice(s + 20, s + 20 + n) for s, n in zip(start, size, strict=True)))]
    result = kind(np.full((2, *size), -3, np.int16))
    cut(kind(array), start, result)
    assert np.array_equal(result, expected)


def test_cut_copies_out_of_a_memory_map(tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "case", np.float32, "w+", shape=(1, 8, 8, 8))
    stored[:] = 2
    result = np.empty((1, 4, 4, 4), np.float32)
    cut(stored, (-1, 2, 3), result)
    result += 1
    assert (result[:, 0] == 1).all()
    assert (result[:, 1:] == 3).all()
    assert (stored == 2).all()
