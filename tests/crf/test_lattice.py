"""Sums by lattice beside the same sums, pair by pair."""

import pytest
import torch

from medseg.crf.lattice import Lattice, _simplex
from medseg.errors import ConfigError


def exact(features, values):
    return (-0.5 * torch.cdist(features, features) ** 2).exp() @ values


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 6])
def test_a_point_lies_in_its_simplex(dims):
    features = 5 * torch.randn(200, dims, generator=torch.Generator().manual_seed(0))
    base, rank, weights = _simplex(features)
    torch.testing.assert_close(weights.sum(0), torch.ones(200))
    assert weights.min() > -1e-4
    assert base.sum(1).eq(0).all()
    assert rank.sort(1).values.eq(torch.arange(dims + 1)).all()


@pytest.mark.parametrize("size", [(60, 60), (16, 16, 16)])
def test_sums_on_a_grid_are_near_the_exact(size):
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) / 3 for n in size], indexing="ij"), -1).flatten(0, -2)
    values = torch.rand(len(grid), 2, generator=torch.Generator().manual_seed(0))
    found, expected = Lattice(grid)(values), exact(grid, values)
    assert ((found - expected).abs() / expected).mean() < 0.05


def test_gradients_are_the_sums_of_the_others():
    """In two directions blurred one after the other, the sum at n of a one at m is nearly that at m of a one at n."""
    features = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    lattice, values = Lattice(features), torch.zeros(300, 1, requires_grad=True)
    lattice(values)[7].backward()
    one = torch.zeros(300, 1)
    one[7] = 1
    torch.testing.assert_close(values.grad, lattice(one), atol=0.05, rtol=0)
    assert values.grad[7] > 0.7


@pytest.mark.parametrize("far", [1e4, 1e8])
def test_far_apart_points_are_refused(far):
    with pytest.raises(ConfigError, match="thetas are too small"):
        Lattice(torch.rand(10, 6) * far)
