import pytest
import torch
from torch import nn

from medseg.models import create_model


def test_weights_of_the_paper(count):
    assert count("vnet", "paper", 3, 1, 2) == 65_175_316


def test_each_stage_sees_as_far_as_the_paper_says():
    net = create_model("vnet", spatial_dims=2, in_channels=1, out_channels=2, widths=(2, 2, 2, 2, 2)).double()
    image = torch.rand(1, 1, 512, 512, dtype=torch.float64, requires_grad=True)
    x, seen = image, []
    for index, stage in enumerate(net.encoder):
        x = stage(net.downs[index - 1](x) if index else x)
        (slope,) = torch.autograd.grad(x[0, :, x.shape[2] // 2, x.shape[3] // 2].sum(), image, retain_graph=True)
        seen.append(int((slope[0, 0].abs().sum(1) > 0).sum()))
    assert seen == [5, 22, 72, 172, 372]


def test_a_stage_without_weights_passes_its_input():
    net = create_model("vnet", spatial_dims=3, in_channels=3, out_channels=2, preset="tiny")
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.zeros_(weight)
    x = torch.rand(1, 3, 4, 4, 4)
    assert torch.equal(net.encoder[0](x), x[:, [0, 1, 2, 0]])  # three channels repeated to fill four
    wide = torch.rand(1, 16, 4, 4, 4)
    assert torch.equal(net.decoder[-1](wide[:, :8]), wide[:, :8])


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_any_number_of_channels(channels):
    net = create_model("vnet", spatial_dims=2, in_channels=channels, out_channels=2, preset="tiny")
    assert net(torch.rand(1, channels, 9, 9)).shape == (1, 2, 9, 9)
