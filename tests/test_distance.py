import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from medseg import distance

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
