import pytest
import torch
from torch import nn

from medseg.models.deep_res_unet import Config, Fit, residual


def test_weights_of_the_paper(count):
    assert count("deep_res_unet", "paper", 2, 3, 1) == pytest.approx(7.8e6, rel=0.005)


def test_projections_are_1x1_convolutions_with_normalisation(count):
    ways = [(3, 64), (64, 128), (128, 256), (256, 512), (768, 256), (384, 128), (192, 64)]
    more = sum(a * b + b + 2 * b for a, b in ways)
    assert count("deep_res_unet", "projection", 2, 3, 1) == count("deep_res_unet", "paper", 2, 3, 1) + more


def test_what_passes_a_unit_is_every_second_voxel_with_channels_cut_or_filled():
    x = torch.rand(1, 2, 5, 4)
    wide = Fit(2, 3, (2, 1))(x)
    assert torch.equal(wide[:, :2], x[:, :, ::2])
    assert wide.shape == (1, 3, 3, 4)
    assert not wide[:, 2].any()
    assert torch.equal(Fit(2, 1, 1)(x), x[:, :1])


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_unit_begins_with_a_convolution(first):
    unit = residual(2, 2, 4, 1, Config(), first=first)
    assert isinstance(unit.body[0], nn.Conv2d) == first
    nn.init.zeros_(unit.body[-1].weight)
    nn.init.zeros_(unit.body[-1].bias)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(unit(x), Fit(2, 4, 1)(x))
