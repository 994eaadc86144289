"""Arrays on another grid: by hand, then scipy, then that neither the order of memory nor the slabs can be seen in the result."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import map_coordinates

from medseg.geometry import resampling

MEMORY = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "flipped": lambda a: np.asfortranarray(a[:, ::-1, :, ::-1])[:, ::-1, :, ::-1],
    "permuted": lambda a: np.ascontiguousarray(a.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2),
}


def grid(steps: tuple[float, ...], start: tuple[float, ...], order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Index of the result -> index of the source: axis `a` of the result runs along axis `order[a]` of the source."""
    matrix = np.zeros((4, 4))
    matrix[[*order, 3], range(4)] = [*np.array(steps)[list(order)], 1]
    matrix[:3, 3] = start
    return matrix


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 1.5], [s, c, 0, -1], [0, 0, 0.8, 0.3], [0, 0, 0, 1]])


def places(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.einsum("ab,b...->a...", matrix[:3, :3], np.indices(shape)) + matrix[:3, 3].reshape(3, 1, 1, 1)


def interpolated(array: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...], fill: float) -> np.ndarray:
    at = places(matrix, shape)
    size = np.reshape(array.shape, (3, 1, 1, 1))
    beyond = ((at < -0.5001) | (at > size - 0.4999)).any(0)
    return np.where(beyond, fill, map_coordinates(array.astype(float), at, order=1, mode="nearest"))


def elected(labels: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every label's indicator interpolated over the whole grid, and by how much the first of them is ahead."""
    values = sorted({0, *np.unique(labels).tolist()}, key=lambda value: (value != 0, value))
    shares = np.stack([interpolated(labels == value, matrix, shape, float(value == 0)) for value in values])
    ahead = np.diff(np.sort(shares, 0)[-2:], axis=0)[0] if len(values) > 1 else np.ones(shape)
    return np.array(values)[shares.argmax(0)], ahead


def test_halfway_between_two_voxels() -> None:
    row = np.array([0, 10, 30], np.int16).reshape(1, 3, 1, 1)
    matrix = grid((0.5, 1, 1), (-1, 0, 0))
    assert resampling.linear(row, matrix, (8, 1, 1), fill=-7)[0, :, 0, 0].tolist() == [-7, 0, 0, 5, 10, 20, 30, 30]
    assert resampling.nearest(row, matrix, (8, 1, 1), fill=-7)[0, :, 0, 0].tolist() == [-7, 0, 0, 10, 10, 30, 30, 30]
    assert resampling.linear(row, matrix, (8, 1, 1)).dtype == np.float32
    assert resampling.nearest(row, matrix, (8, 1, 1)).dtype == np.int16


def test_a_tie_is_for_background_and_then_for_the_lowest() -> None:
    row = np.array([3, 0, 3, 2, 1], np.uint8).reshape(1, 5, 1, 1)
    found = resampling.vote(row, grid((0.5, 1, 1), (0, 0, 0)), (9, 1, 1))[0, :, 0, 0]
    assert found.tolist() == [3, 0, 0, 0, 3, 2, 2, 1, 1]


def test_the_majority_of_several_labels_is_not_needed() -> None:
    """Of eight voxels three have label 9 and five have labels of their own."""
    cube = np.array([9, 9, 9, 1, 2, 3, 4, 5], np.uint8).reshape(1, 2, 2, 2)
    assert resampling.vote(cube, grid((1, 1, 1), (0.5, 0.5, 0.5)), (1, 1, 1)).item() == 9


def test_labels_end_half_a_voxel_beyond_their_last_centre() -> None:
    found = resampling.vote(np.full((1, 2, 2, 2), 4, np.uint8), grid((0.4, 1, 1), (-0.8, 0, 0)), (8, 2, 2))
    assert found[0, :, 1, 1].tolist() == [0, 4, 4, 4, 4, 4, 0, 0]


def test_a_missing_value_spoils_only_its_neighbours() -> None:
    array = np.ones((1, 40, 40, 40), np.float32)
    array[0, 20, 20, 20] = np.nan
    spoilt = np.isnan(resampling.linear(array, grid((0.7, 0.7, 0.7), (0, 0, 0)), (57, 57, 57)))
    assert 1 <= spoilt.sum() <= 4**3


@settings(deadline=None, max_examples=40)
@given(
    arrays.arrays(np.int16, st.tuples(st.just(2), *[st.integers(1, 6)] * 3), elements=st.integers(-999, 999)),
    st.tuples(*[st.floats(0.3, 3)] * 3),
    st.tuples(*[st.floats(-1, 2)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.permutations(range(3)),
    st.sampled_from(sorted(MEMORY)),
)
def test_linear_equals_scipy(array, steps, start, shape, order, memory) -> None:  # type: ignore[no-untyped-def]
    matrix = grid(steps, start, tuple(order))
    found = resampling.linear(MEMORY[memory](array), matrix, shape, fill=-3)
    for one, channel in zip(found, array, strict=True):
        np.testing.assert_allclose(one, interpolated(channel, matrix, shape, -3), atol=1e-2)


@pytest.mark.parametrize("matrix", [grid((0.6, 1.7, 0.9), (-0.8, 0.2, 0.4)), turned(25)], ids=["aligned", "oblique"])
@pytest.mark.parametrize("values", [(0, 1), (0, 255, 3), (0, 7, 40001, 65535), (-5, 0, 2, 9), (0.0, 1.5)])
@pytest.mark.parametrize("memory", ["C", "Fortran"])
def test_the_elected_label_has_most_weight(matrix: np.ndarray, values: tuple[float, ...], memory: str) -> None:
    dtype = np.result_type(*map(np.min_scalar_type, values))
    blocks = np.random.default_rng(1).choice(np.array(values, dtype), (2, 4, 3, 5))
    labels = MEMORY[memory](np.kron(blocks, np.ones((1, 2, 2, 2), dtype)).astype(dtype))
    found = resampling.vote(labels, matrix, (14, 6, 12))
    assert found.dtype == dtype
    for one, channel in zip(found, labels, strict=True):
        expected, ahead = elected(channel, matrix, one.shape)
        assert (one == expected)[ahead > 1e-4].all()
        assert (ahead > 1e-4).mean() > 0.8


def test_boolean_labels_stay_boolean() -> None:
    ball, matrix = np.linalg.norm(np.indices((12, 12, 12)) - 5.3, axis=0) < 4, grid((0.47, 0.53, 0.61), (0, 0, 0))
    found = resampling.vote(ball[None], matrix, (23, 21, 19))[0]
    assert found.dtype == bool
    np.testing.assert_array_equal(found, elected(ball, matrix, found.shape)[0])


@pytest.mark.parametrize("resampled", [resampling.linear, resampling.nearest, resampling.vote])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("memory", sorted(MEMORY))
def test_neither_memory_nor_slabs_are_seen(
    resampled: Callable[..., np.ndarray], order: tuple[int, ...], memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).integers(0, 5, (2, 17, 13, 15)).astype(np.uint8)
    options = {"antialias": True} if resampled is resampling.linear else {}
    for steps in ((1.93, 0.71, 2.57), (-1.93, -0.53, 1.0)):
        start = [(size - 1) / 2 - step * 6 for size, step in zip(array.shape[1:], steps, strict=True)]
        matrix = grid(steps, tuple(start), order)
        monkeypatch.setattr(resampling, "_SLAB", 1 << 30)
        whole = resampled(array, matrix, (12, 14, 13), **options)
        monkeypatch.setattr(resampling, "_SLAB", 1)
        sliced = resampled(MEMORY[memory](array), matrix, (12, 14, 13), **options)
        np.testing.assert_allclose(sliced, whole, atol=1e-5)
        assert sliced.flags.c_contiguous


def test_labels_take_no_more_memory_than_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_SLAB", 1 << 16)
    labels = (np.linalg.norm(np.indices((128, 128, 96)) - 60, axis=0)[None] // 20 % 4).astype(np.uint8)
    tracemalloc.start()
    found = resampling.vote(labels, grid((0.8, 0.8, 1.1), (0, 0, 0)), (158, 158, 86))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.nbytes < peak < 2 * found.nbytes + 2e6
