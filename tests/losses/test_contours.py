import pytest
import torch

from medseg.losses._contours import length, spread


def test_the_length_of_a_straight_edge():
    """A plane through 6 x 4 voxels of 0.5 x 3 mm: its area over the voxel's volume is 1 / 2 mm."""
    mask = torch.zeros(1, 1, 5, 6, 4, dtype=torch.float64)
    mask[:, :, :2] = 1
    found = length(mask, (2.0, 0.5, 3.0), epsilon=0.0)
    assert found.sum().item() == pytest.approx(6 * 4 / 2)
    assert not found[:, :, [0, 2, 3, 4]].any()


def test_ignored_voxels_have_no_edges():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    valid = torch.ones(1, 1, 4, 4)
    valid[..., 2] = 0
    assert length(mask, (1.0, 1.0), valid, epsilon=0.0).sum() == 0


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_spread_is_the_energy_around_the_mean(offset):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 5, 6, generator=generator) + offset
    shares = torch.rand(2, 4, 5, 6, generator=generator)
    means = torch.einsum("bcij,bkij->bkc", image, shares) / shares.sum((2, 3))[..., None]
    apart = (image[:, None] - means[..., None, None]).square().mean(2)
    torch.testing.assert_close(spread(image, shares), (shares * apart).sum((2, 3)), rtol=1e-3, atol=1e-3)


def test_spread_of_nothing():
    assert not spread(torch.randn(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)).any()
