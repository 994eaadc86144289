"""Surfaces: distances known by hand, then surface-distance, then what must hold for any two masks."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from medseg.errors import ConfigError, GeometryError
from medseg.metrics._surfels import corners, surface_of_codes
from medseg.metrics.surface import SurfaceDistances, assd, hausdorff, masd, nsd

# The peer looks up SciPy's functions under names that SciPy has deprecated.
peer_names = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def points(*indices: tuple[int, ...], shape: tuple[int, ...] = (12, 12, 12)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(indices))] = True
    return mask


def blobs(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = (ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(2))
    return a > 0.03, a + 0.5 * b > 0.03


@pytest.mark.parametrize("percentile", [0, 0.95, 101, math.nan, "95", None, [95]])
def test_percentiles_that_cannot_be_meant(percentile: float) -> None:
    one = points((2, 3, 4))
    with pytest.raises(ConfigError, match="percentile lies above 1 and up to 100"):
        hausdorff(one, one, percentile=percentile)


@pytest.mark.parametrize("tolerance_mm", [-1, math.nan, math.inf, "1", None, [1]])
def test_tolerances_that_are_no_distance(tolerance_mm: float) -> None:
    one = points((2, 3, 4))
    with pytest.raises(ConfigError, match="tolerance_mm is a distance"):
        nsd(one, one, tolerance_mm=tolerance_mm)


@pytest.mark.parametrize("diagonal_mm", [0, -1, math.nan])
def test_what_a_missed_surface_cannot_be_worth(diagonal_mm: float) -> None:
    one = points((2, 3, 4))
    with pytest.raises(ConfigError, match="stands for a missed surface, is above 0 mm"):
        hausdorff(one, one & False, diagonal_mm=diagonal_mm)
    assert hausdorff(one, one & False, diagonal_mm=math.inf) == math.inf


@pytest.mark.parametrize("spacing", [(1, 1, 0), (1, 1, -2), (1, 1, math.nan), np.ones((3, 3))])
def test_sizes_that_no_voxel_has(spacing: tuple[float, ...]) -> None:
    one = points((2, 3, 4))
    with pytest.raises(GeometryError, match="voxel sizes in mm are finite and above 0"):
        hausdorff(one, one, spacing_mm=spacing)


def test_two_voxels_some_mm_apart() -> None:
    a, b = points((2, 3, 4)), points((2, 3, 7))
    assert hausdorff(a, b, spacing_mm=(1, 1, 2), percentile=100) == pytest.approx(6)
    # The corners of the two voxels that face each other are 4 mm apart, the others 6 mm.
    assert assd(a, b, spacing_mm=(1, 1, 2)) == pytest.approx(5)
    assert nsd(a, b, spacing_mm=(1, 1, 2), tolerance_mm=3.9) == 0
    assert nsd(a, b, spacing_mm=(1, 1, 2), tolerance_mm=4) == pytest.approx(0.5)
    assert nsd(a, b, spacing_mm=(1, 1, 2), tolerance_mm=6) == 1


def test_a_distance_equal_to_the_tolerance_is_within() -> None:
    a, b = points((2, 3, 2)), points((2, 3, 12), shape=(12, 12, 24))
    a = np.pad(a, ((0, 0), (0, 0), (0, 12)))
    assert nsd(a, b, spacing_mm=(0.1, 0.1, 0.1), tolerance_mm=1.0) == 1


@pytest.mark.parametrize("elements", ["areas", "voxels"])
def test_voxels_of_a_tenth_of_a_micrometre_are_told_apart(elements: str) -> None:
    a = points((2, 3, 2))
    fine = {"spacing_mm": (1e-4, 1e-4, 1e-4), "elements": elements}
    assert nsd(a, a, tolerance_mm=0, **fine) == 1
    assert nsd(a, np.roll(a, 2, 2), tolerance_mm=1.9e-4, **fine) == pytest.approx(0.5 if elements == "areas" else 0)
    assert nsd(a, np.roll(a, 2, 2), tolerance_mm=2e-4, **fine) == 1


def test_the_axes_are_told_apart() -> None:
    a = points((4, 4, 4))
    for axis, spacing in enumerate((0.5, 2.0, 3.0)):
        assert hausdorff(a, np.roll(a, 1, axis), spacing_mm=(0.5, 2, 3)) == pytest.approx(spacing)


def test_a_sheared_grid() -> None:
    """The voxels lie three steps apart on the k axis, which leans along i: a step is 5 mm, though slices are 4 mm apart."""
    axes = np.array([[1.0, 0, 3], [0, 1, 0], [0, 0, 4]])
    a, b = points((2, 3, 4)), points((2, 3, 7))
    assert hausdorff(a, b, spacing_mm=axes, percentile=100) == pytest.approx(15)


def test_a_turned_grid_changes_nothing() -> None:
    a, b = blobs(0, (20, 18, 10))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    straight = SurfaceDistances.between(a, b, (1, 1, 2.5))
    turned = SurfaceDistances.between(a, b, turn @ np.diag((1, 1, 2.5)))
    assert turned.hausdorff() == pytest.approx(straight.hausdorff())
    assert turned.assd() == pytest.approx(straight.assd())
    assert turned.prediction_area.sum() == pytest.approx(straight.prediction_area.sum())


def test_the_order_of_memory_changes_nothing() -> None:
    a, b = blobs(4, (30, 24, 16))
    plain = SurfaceDistances.between(a, b, (1, 1, 2.5))
    turned = SurfaceDistances.between(np.asfortranarray(a), np.asfortranarray(b), (1, 1, 2.5))
    assert all(np.array_equal(x, y) for x, y in zip(vars(plain).values(), vars(turned).values(), strict=True))


def test_one_slice_is_measured_in_its_plane() -> None:
    a, b = blobs(2, (30, 40))
    for axis in range(3):
        spacing = np.insert(np.array((0.7, 1.3)), axis, 5.0)
        flat = SurfaceDistances.between(np.expand_dims(a, axis), np.expand_dims(b, axis), spacing)
        plane = SurfaceDistances.between(a, b, (0.7, 1.3))
        assert flat.hausdorff() == plane.hausdorff()
        assert flat.assd() == pytest.approx(plane.assd())


def test_area_of_a_box() -> None:
    mask = np.zeros((30, 30, 30), bool)
    mask[5:25, 5:25, 5:25] = True
    areas = SurfaceDistances.between(mask, mask, (1, 1, 2)).prediction_area
    assert areas.sum() == pytest.approx(2 * 20 * 20 + 4 * 20 * 40, rel=0.05)  # edges are cut off


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 4, 5), bool), points((1, 1, 1), shape=(3, 4, 5))
    assert all(math.isnan(metric(empty, empty)) for metric in (hausdorff, assd, masd, nsd))
    for pair in ((empty, full), (full, empty)):
        assert hausdorff(*pair) == pytest.approx(math.sqrt(50))
        assert assd(*pair, diagonal_mm=123.0) == masd(*pair, diagonal_mm=123.0) == 123
        assert hausdorff(*pair, elements="voxels", percentile=95) == pytest.approx(math.sqrt(50))
        assert nsd(*pair, tolerance_mm=1000.0) == 0


def test_masks_at_the_border_are_closed_there() -> None:
    whole = np.ones((4, 4, 4), bool)
    inner = np.pad(whole, 3)
    at_border, inside = SurfaceDistances.between(whole, whole), SurfaceDistances.between(inner, inner)
    assert at_border.prediction_area.sum() == inside.prediction_area.sum() > 0


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 3), (0.7, 1.3, 5)])
def test_areas_of_all_codes_equal_the_peers(spacing: tuple[float, ...]) -> None:
    from surface_distance import lookup_tables as peer

    def codes_of_peer(kernel: np.ndarray, ndim: int) -> list[int]:
        bits = [int(kernel[corner]) for corner in corners(ndim)]
        return [sum(bit for n, bit in enumerate(bits) if code >> n & 1) for code in range(2 ** len(bits))]

    areas = peer.create_table_neighbour_code_to_surface_area(spacing)
    ours = surface_of_codes(np.diag(spacing))
    np.testing.assert_allclose(ours, areas[codes_of_peer(peer.ENCODE_NEIGHBOURHOOD_3D_KERNEL, 3)], atol=1e-12)
    lengths = peer.create_table_neighbour_code_to_contour_length(spacing[1:])
    ours = surface_of_codes(np.diag(spacing[1:]))
    np.testing.assert_allclose(ours, lengths[codes_of_peer(peer.ENCODE_NEIGHBOURHOOD_2D_KERNEL, 2)], atol=1e-12)


@peer_names
@pytest.mark.parametrize("shape", [(30, 24, 16), (40, 50)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_results_equal_the_peers(seed: int, shape: tuple[int, ...]) -> None:
    import surface_distance as peer

    prediction, reference = blobs(seed, shape)
    spacing = (0.8, 1.2, 3.0)[: len(shape)]
    theirs = peer.compute_surface_distances(reference, prediction, spacing)
    ours = SurfaceDistances.between(prediction, reference, spacing)
    assert ours.hausdorff(95) == pytest.approx(peer.compute_robust_hausdorff(theirs, 95), rel=1e-6)
    assert ours.hausdorff(100) == pytest.approx(peer.compute_robust_hausdorff(theirs, 100), rel=1e-6)
    assert ours.nsd(1.0) == pytest.approx(peer.compute_surface_dice_at_tolerance(theirs, 1.0))
    back, forth = peer.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert ours.assd() == pytest.approx(np.average((back, forth), weights=areas), rel=1e-6)
    assert ours.masd() == pytest.approx((back + forth) / 2, rel=1e-6)


def test_two_voxels_some_mm_apart_by_their_centres() -> None:
    a, b = points((2, 3, 4)), points((2, 3, 7))
    voxels = {"spacing_mm": (1, 1, 2), "elements": "voxels"}
    assert hausdorff(a, b, **voxels) == assd(a, b, **voxels) == masd(a, b, **voxels) == pytest.approx(6)
    assert (nsd(a, b, tolerance_mm=5.9, **voxels), nsd(a, b, tolerance_mm=6, **voxels)) == (0, 1)


def test_both_means_of_surfaces_of_unlike_size() -> None:
    """One voxel beside three: 1 mm one way; 1, 2 and 3 mm the other way."""
    a, b = points((2, 2, 2)), points((2, 2, 3), (2, 2, 4), (2, 2, 5))
    assert masd(a, b, elements="voxels") == pytest.approx((1 + 2) / 2)
    assert assd(a, b, elements="voxels") == pytest.approx((1 + 1 + 2 + 3) / 4)


def test_other_elements_are_refused() -> None:
    with pytest.raises(ConfigError, match="areas or voxels, got 'voxel'"):
        hausdorff(points((1, 1, 1)), points((1, 1, 1)), elements="voxel")


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.8, 1.2, 3.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_voxels_are_those_of_monai_and_medpy(seed: int, spacing: tuple[float, ...]) -> None:
    import torch
    from monai import metrics as monai

    prediction, reference = blobs(seed, (24, 20, 14))
    ours = SurfaceDistances.between(prediction, reference, spacing, elements="voxels")
    p, r = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference))
    for percentile in (50, 95, 100):
        theirs = monai.compute_hausdorff_distance(p, r, include_background=True, percentile=percentile, spacing=spacing)
        assert ours.hausdorff(percentile) == pytest.approx(theirs.item(), rel=1e-5)
    theirs = monai.compute_average_surface_distance(p, r, include_background=True, symmetric=True, spacing=spacing)
    assert ours.assd() == pytest.approx(theirs.item(), rel=1e-5)
    theirs = monai.compute_surface_dice(p, r, [1.5], include_background=True, spacing=spacing)
    assert ours.nsd(1.5) == pytest.approx(theirs.item(), rel=1e-6)
    medpy = pytest.importorskip("medpy.metric")
    assert ours.hausdorff(100) == pytest.approx(medpy.hd(prediction, reference, spacing), rel=1e-6)
    assert ours.assd() == pytest.approx(medpy.assd(prediction, reference, spacing), rel=1e-6)
    directed = (medpy.asd(*pair, spacing) for pair in ((prediction, reference), (reference, prediction)))
    assert ours.masd() == pytest.approx(sum(directed) / 2, rel=1e-6)
    both = np.concatenate((ours.prediction_mm, ours.reference_mm))  # medpy's HD95 is of both directions together
    assert np.percentile(both, 95) == pytest.approx(medpy.hd95(prediction, reference, spacing), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(bool, (2, 5, 4, 3)))
def test_symmetric_and_ordered(masks: np.ndarray) -> None:
    a, b = masks
    if not (a.any() and b.any()):
        return
    there, back = (SurfaceDistances.between(*pair, (1, 2, 3)) for pair in ((a, b), (b, a)))
    assert there.hausdorff() == back.hausdorff()
    assert there.nsd() == pytest.approx(back.nsd())
    assert there.hausdorff(50) <= there.hausdorff(95) <= there.hausdorff(100) <= there.diagonal_mm
    assert there.assd() <= there.hausdorff(100) + 1e-6
    assert there.masd() == pytest.approx(back.masd())
    assert SurfaceDistances.between(a, a, (1, 2, 3)).hausdorff(100) == 0
