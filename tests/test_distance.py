import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg import distance

on_accelerators = distance._to_boundary_tensor
masks = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
spacings = st.tuples(*[st.floats(0.3, 5)] * 3)


def test_two_voxels_apart_on_an_anisotropic_grid():
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, 0] = True
    found = distance.to_mask(mask, (1.0, 2.0, 3.0))
    assert found[0, 0, 0] == 0
    assert found[2, 0, 0] == 2
    assert found[0, 3, 0] == 6
    assert found[2, 3, 4] == pytest.approx(np.sqrt(4 + 36 + 144))


def test_both_sides_of_a_boundary_are_one_step_from_it():
    mask = np.array([[0, 0, 1, 1, 1, 0]], bool)
    np.testing.assert_allclose(distance.to_boundary(mask, (1.0, 2.0)), [[4, 2, 2, 4, 2, 2]])


@pytest.mark.parametrize("value", [False, True])
def test_no_boundary_is_zero_everywhere(value):
    mask = np.full((3, 4, 2), value)
    assert not distance.to_boundary(mask).any()
    assert not distance.to_boundary_batch(torch.from_numpy(mask)[None, None]).any()
    assert not distance._to_boundary_tensor(torch.from_numpy(mask)[None, None], (1, 1, 1)).any()


def test_nothing_is_infinitely_far_from_an_empty_mask():
    assert np.isinf(distance.to_mask(np.zeros((2, 3), bool))).all()


@given(masks, spacings)
@settings(max_examples=60, deadline=None)
def test_arrays_and_tensors_equal_scipy(mask, spacing):
    spacing = spacing[: mask.ndim]
    if mask.any():
        expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
        np.testing.assert_allclose(distance.to_mask(mask, spacing), expected, atol=1e-4)
    if mask.any() and not mask.all():
        expected = expected + ndimage.distance_transform_edt(mask, sampling=spacing)
        np.testing.assert_allclose(distance.to_boundary(mask, spacing), expected, atol=1e-4)
        tensor = distance._to_boundary_tensor(torch.from_numpy(mask)[None, None], spacing)
        np.testing.assert_allclose(tensor[0, 0].numpy(), expected, atol=1e-4)


def test_memory_order_does_not_matter():
    mask = np.random.default_rng(0).random((5, 6, 7)) > 0.8
    np.testing.assert_array_equal(
        distance.to_boundary(np.asfortranarray(mask), (1, 2, 3)), distance.to_boundary(mask, (1, 2, 3))
    )


def test_every_mask_of_a_batch_is_alone():
    mask = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)) > 0.6
    mask[1, 2] = False
    found = distance.to_boundary_batch(mask, (1.5, 0.5))
    assert found.shape == mask.shape
    assert found.dtype == torch.float32
    for b in range(2):
        for k in range(3):
            np.testing.assert_array_equal(found[b, k], distance.to_boundary(mask[b, k].numpy(), (1.5, 0.5)))
    torch.testing.assert_close(distance._to_boundary_tensor(mask, (1.5, 0.5)), found)


def test_what_does_not_count_is_on_neither_side():
    mask = torch.tensor([[[[0, 0, 1, 1, 0, 0, 1]]]]).bool()
    counted = torch.tensor([[[[1, 1, 1, 1, 0, 0, 1]]]]).bool()
    expected = torch.tensor([2.0, 1, 1, 2, 5])
    for found in (
        distance.to_boundary_batch(mask, counted=counted),
        distance._to_boundary_tensor(mask, (1, 1), counted),
    ):
        assert torch.equal(found[counted], expected)
        assert found.isfinite().all()
    assert not distance.to_boundary_batch(mask, counted=mask).any()


def test_masks_of_a_batch_and_what_is_farther_than_any():
    mask = torch.rand(2, 2, 5, 4, 3, generator=torch.Generator().manual_seed(0)) > 0.9
    mask[1, 1] = False
    found = distance.to_mask_batch(mask, (1.5, 0.5, 2))
    for one, alone in zip(mask.flatten(0, 1), found.flatten(0, 1), strict=True):
        np.testing.assert_array_equal(alone, distance.to_mask(one.numpy(), (1.5, 0.5, 2)))
    torch.testing.assert_close(distance._squared_to_mask(mask, (1.5, 0.5, 2)).sqrt(), found)


@pytest.mark.parametrize(
    ("measure", "size"), [(distance.to_boundary_batch, 24), (distance.to_mask_batch, 24), (on_accelerators, 8)]
)
def test_many_calls_leave_nothing_behind(measure, size):
    """Each result that were kept would be missed by the measure of memory before the end."""
    psutil = pytest.importorskip("psutil")
    mask = torch.zeros(2, 2, size, size, size, dtype=torch.bool)
    mask[..., : size // 2] = True
    calls, one = 40_000_000 // (4 * mask.numel()), psutil.Process()
    for _ in range(20):
        measure(mask, (1, 1, 2))
    before = one.memory_info().rss
    for _ in range(calls):
        measure(mask, (1, 1, 2))
    assert one.memory_info().rss - before < 10_000_000  # of 40 MB that were returned


def searched(here, there, axes):
    return cKDTree(np.argwhere(there) @ axes.T).query(np.argwhere(here) @ axes.T)[0]


@pytest.fixture
def looks(monkeypatch):
    """No grid is too small to look around in, and no time too long."""
    for name in ("_PREPARED", "_LOOK", "_CALL"):
        monkeypatch.setattr(distance, name, 0)


def test_between_two_elements_and_none(looks):
    here, there = np.zeros((2, 9, 8, 7), bool)
    here[1, 2, 3] = there[1, 2, 6] = True
    assert distance.between(here, there, np.diag((1, 1, 2.0))).tolist() == [6]
    assert distance.between(here, here, np.eye(3)).tolist() == [0]
    assert distance.between(here, here & False, np.eye(3)).tolist() == [np.inf]
    assert distance.between(here & False, there, np.eye(3)).tolist() == []


@given(arrays.arrays(bool, st.tuples(st.just(2), *[st.integers(1, 7)] * 3)), spacings, st.floats(-0.9, 0.9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_looking_around_equals_a_search(looks, masks, spacing, shear):
    here, there = masks
    axes = np.diag(spacing)
    axes[0, 2] = shear
    if there.any():
        np.testing.assert_allclose(distance.between(here, there, axes), searched(here, there, axes), atol=1e-5)


@pytest.mark.parametrize("shear", [0.0, 0.4])
@pytest.mark.parametrize("look", [0, 0.25, 100])
@pytest.mark.parametrize("memory", [np.ascontiguousarray, np.asfortranarray])
def test_whatever_way_is_taken_distances_are_the_same(monkeypatch, memory, look, shear):
    """Two balls that overlap in part, with a few elements far away: some are found by looks, the others by a slower way."""
    monkeypatch.setattr(distance, "_LOOK", look)
    away = [np.linalg.norm(np.indices((60, 40, 40)).T - centre, axis=-1).T for centre in ((20, 20, 20), (26, 18, 20))]
    here, there = (abs(ball - 12) < 0.7 for ball in away)
    here[55:58, 30, 3] = True
    axes = np.array([[0.8, 0, shear], [0, 0.8, 0], [0, 0, 1.5]])
    found = distance.between(memory(here), memory(there), axes)
    np.testing.assert_allclose(found, searched(here, there, axes), atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_thick_slices_hide_nothing(looks, axis):
    """Slices are 30 mm thick, so that only a plane is looked at: 25 mm straight on are nearer than 25.5 mm aslant."""
    here, there = np.zeros((2, 60, 60, 3), bool)
    here[5, 5, 1] = there[30, 5, 1] = there[23, 23, 1] = True
    axes = np.diag(np.insert([1.0, 1.0], axis, 30))
    assert distance.between(np.moveaxis(here, 2, axis), np.moveaxis(there, 2, axis), axes) == pytest.approx(25)
