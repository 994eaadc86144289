from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg import geometry as geo
from medseg.geometry.region import Region, crop, part, whole
from medseg.volume import Geometry, Volume

Array = npt.NDArray[Any]
AXCODES = ["".join(c) for p in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*p)]
GRID = Geometry((40, 30, 20), np.diag([1.0, 2, 5, 1]))


def found(shape: tuple[int, ...], *ends: tuple[int, int]) -> Array:
    array = np.zeros(shape, bool)
    array[tuple(slice(*pair) for pair in ends)] = True
    return array


def spans(box: tuple[slice, ...]) -> list[tuple[int, int]]:
    return [(s.start, s.stop) for s in box]


@pytest.mark.parametrize(
    ("margin_mm", "expected"),
    [
        (0, [(20, 22), (10, 14), (9, 10)]),
        (4, [(16, 26), (8, 16), (8, 11)]),  # less than a voxel along k is a voxel
        (5, [(15, 27), (7, 17), (8, 11)]),
        (40, [(0, 40), (0, 30), (1, 18)]),  # as far as the scan goes
    ],
)
def test_a_margin_by_hand(margin_mm: float, expected: list[tuple[int, int]]) -> None:
    where = found(GRID.shape, (20, 22), (10, 14), (9, 10))
    assert spans(Region(margin_mm=margin_mm).around(where, GRID, GRID)) == expected


@pytest.mark.parametrize(
    ("at", "least_mm", "expected"),
    [
        ((20, 22), 10, (16, 26)),  # four more on both sides
        ((20, 21), 10, (16, 26)),
        ((0, 2), 10, (0, 10)),  # the scan ends there
        ((38, 40), 10, (30, 40)),
        ((20, 35), 10, (20, 35)),  # it is large enough
        ((20, 22), 100, (0, 40)),  # there is no more
    ],
)
def test_a_least_extent_by_hand(at: tuple[int, int], least_mm: float, expected: tuple[int, int]) -> None:
    where = found(GRID.shape, at, (10, 14), (9, 10))
    box = Region(margin_mm=0, least_mm=(least_mm, 0, 0)).around(where, GRID, GRID)
    assert spans(box) == [expected, (10, 14), (9, 10)]


def test_nothing_found_is_no_reason_to_look_nowhere() -> None:
    assert Region(margin_mm=5).around(found(GRID.shape, (0, 0)), GRID, GRID) == whole(GRID)


def test_a_coarse_finding_is_outlined_by_its_voxels_edges() -> None:
    """A voxel of 4 mm that covers 4..8 mm of voxels of 1 mm, which reach from half a millimetre below their index."""
    scan = Geometry((24, 24, 24), np.eye(4))
    coarse = geo.with_spacing(scan, (4, 4, 4))
    assert coarse.shape == (6, 6, 6)
    where = found(coarse.shape, (1, 2), (0, 1), (5, 6))
    assert spans(Region(margin_mm=0).around(where, coarse, scan)) == [(4, 8), (0, 4), (20, 24)]
    assert spans(Region(margin_mm=2.5).around(where, coarse, scan)) == [(1, 11), (0, 7), (17, 24)]


def test_what_lies_beyond_the_scan_is_not_looked_at() -> None:
    beyond = Geometry((40, 30, 20), np.diag([1.0, 2, 5, 1]) + np.array([[0, 0, 0, 30]] + [[0] * 4] * 3))
    where = found(GRID.shape, (5, 20), (10, 14), (9, 10))
    assert spans(Region(margin_mm=0).around(where, beyond, GRID))[0] == (35, 40)
    assert spans(Region(margin_mm=0).around(found(GRID.shape, (20, 25), (1, 2), (3, 4)), beyond, GRID))[0] == (39, 40)


@pytest.mark.parametrize("axcodes", AXCODES)
def test_the_same_place_in_every_orientation(axcodes: str) -> None:
    where = found(GRID.shape, (25, 28), (3, 9), (14, 16))
    region = Region(margin_mm=4, least_mm=(20, 0, 35))
    scan = Volume(np.random.default_rng(0).random(GRID.shape).astype(np.float32), GRID)
    plain = crop(scan, region.around(where, GRID, GRID))
    turned, turned_where = (geo.reorient(v, axcodes) for v in (scan, scan.replace(array=where)))
    part_ = crop(turned, region.around(turned_where.array[0], turned.geometry, turned.geometry))
    back = geo.reorient(part_, "RAS")
    assert abs(back.geometry.shape[0] - 20) <= 1  # an odd number more lies on one side
    np.testing.assert_allclose(back.geometry.corners_world, plain.geometry.corners_world, atol=5.01)
    mixed = crop(turned, region.around(where, GRID, turned.geometry))  # found on another grid
    np.testing.assert_allclose(mixed.geometry.affine, part_.geometry.affine)
    assert mixed.geometry.shape == part_.geometry.shape


@given(st.integers(0, 10_000), st.floats(0, 15), st.floats(0, 60))
def test_all_that_was_found_and_its_margin_are_inside(seed: int, margin_mm: float, least_mm: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = Rotation.random(rng=rng).as_matrix() @ np.diag(rng.uniform(0.5, 4, 3))
    matrix[1] += rng.uniform(-0.3, 0.3) * matrix[2]  # a tilted gantry
    scan = Geometry((30, 25, 20), np.block([[matrix, rng.uniform(-50, 50, (3, 1))], [np.zeros(3), np.ones(1)]]))
    coarse = geo.with_spacing(geo.upright(scan), rng.uniform(2, 6, 3))
    where = np.zeros(coarse.shape, bool)
    where[tuple(rng.integers(0, coarse.shape, (3, 3)).T)] = True
    box = Region(margin_mm=margin_mm, least_mm=(least_mm,) * 3).around(where, coarse, scan)
    index = scan.to_index(coarse.to_world(np.argwhere(where)))
    margin = margin_mm / np.array(scan.spacing_mm)
    low, high = (np.array([getattr(s, end) for s in box]) for end in ("start", "stop"))
    assert ((low <= np.maximum(index.min(0) - margin, 0) + 0.5) | (low == np.array(scan.shape) - 1)).all()
    assert ((high >= np.minimum(index.max(0) + margin + 1, scan.shape) - 0.5) | (high == 1)).all()
    assert (low >= 0).all()
    assert (high <= scan.shape).all()
    enough = np.minimum(np.ceil(least_mm / np.array(scan.spacing_mm) - 1e-3), scan.shape)
    assert (high - low >= enough).all()


def test_a_part_keeps_its_place() -> None:
    box = (slice(3, 9), slice(0, 30), slice(19, 20))
    volume = Volume(np.arange(40 * 30 * 20).reshape(GRID.shape), GRID)
    assert crop(volume, box).geometry == part(GRID, box)
    np.testing.assert_array_equal(crop(volume, box).array[0], volume.array[0][box])
    np.testing.assert_allclose(part(GRID, box).to_world((0, 0, 0)), GRID.to_world((3, 0, 19)))
    assert part(GRID, whole(GRID)) == GRID
