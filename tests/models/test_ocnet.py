import pytest
import torch

from medseg.models import parameters
from medseg.models.ocnet import ObjectPooling

FIRST = 2048 * 512 * 9 + 512 + 1024
KEY, VALUE, BACK = 512 * 256 + 256 + 512, 512 * 256 + 256, 256 * 512 + 512
BASE = FIRST + KEY + VALUE + BACK + (1024 * 512 + 512 + 1024) + 513 * 19


@pytest.mark.parametrize(("depth", "trunk"), [(50, 23_508_032), (101, 42_500_160)])
def test_weights(depth, trunk):
    """Derived from figure 3 and the authors' widths: queries are keys, convolutions of the context have biases."""
    found = parameters("ocnet", preset="base", depth=depth, spatial_dims=2, in_channels=3, out_channels=19)
    assert found == trunk + BASE


@pytest.mark.parametrize("dims", [2, 3])
def test_a_voxel_sees_its_cell(dims):
    part = ObjectPooling(dims, 4, 4, 2, "batch").eval()
    x = torch.randn(1, 4, *[6] * dims).requires_grad_()
    (slope,) = torch.autograd.grad(part(x)[(..., *[0] * dims)].sum(), x)
    seen = slope.abs().sum(1)[0] > 0
    inside = torch.zeros_like(seen)
    inside[(slice(0, 3),) * dims] = True
    assert torch.equal(seen, inside)


def test_alike_voxels_are_averaged():
    """Where all keys are the same, the answer is the mean of the values, for any grid that fits."""
    part, x = ObjectPooling(2, 4, 4, 3, "batch").eval(), torch.ones(1, 4, 5, 1)
    torch.testing.assert_close(part(x), part.last(part.value(x)))
