import pytest
import torch
from torch import nn

from medseg.models import create_model


@pytest.mark.parametrize(("dims", "sweeps"), [(2, 4), (3, 6)])
def test_each_layer_sweeps_both_ways_along_each_axis(dims, sweeps):
    net = create_model("reseg", spatial_dims=dims, in_channels=1, out_channels=2, preset="tiny")
    for layer in net.sweeps:
        assert sum(2 for part in layer.modules() if isinstance(part, nn.GRU) and part.bidirectional) == sweeps


def test_weights(count):
    """By hand: seven convolutions, GRUs of 100 units (three gates, two biases) both ways, three steps up of 50, a classifier."""
    stages = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    trunk = sum(9 * a * b + b for a, b in stages)
    gru = sum(2 * 3 * (100 * (n + 100) + 200) for n in (4 * 256, 200, 200, 200))
    ups = sum(4 * a * 50 + 50 for a in (200, 50, 50))
    assert count("reseg", "vgg16", 2, 3, 11) == trunk + gru + ups + 50 * 11 + 11


def test_every_element_knows_the_whole_image():
    net = create_model("reseg", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").double()
    x = torch.rand(1, 1, 40, 33, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x)[0, :, 0, 0].sum(), x)
    corner = slope[0, 0, -8:, -8:]
    assert corner.any()
