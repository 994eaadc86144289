import torch
from torch import nn

from medseg.models import create_model


def make(**options):
    return create_model("brosch", spatial_dims=2, in_channels=1, out_channels=2, **options)


def test_weights(count):
    """By hand: convolutions of 9x9x9 in, across and out, and a shortcut without a bias of its own."""
    volume = 9**3
    ways = volume * 32 + 32, volume * 32 * 32 + 32, volume * 32 * 32 + 32, volume * 32 * 2 + 2, volume * 32 * 2
    assert count("brosch", "paper", 3, 1, 2) == sum(ways)


def test_it_sees_as_far_as_its_four_convolutions():
    """8 voxels to each side at full resolution; 8 blocks of two within."""
    net = make(widths=(1, 1)).double()
    for weight in net.parameters():
        nn.init.constant_(weight, 0.01)
    image = torch.rand(1, 1, 80, 80, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(net(image)[0, 0, 40, 40], image)
    assert int((slope[0, 0].abs().sum(1) > 0).sum()) == 2 * (2 * 4 + 2 * 8 + 1)


def test_with_the_coarse_level_shut_the_shortcut_answers_alone():
    net = make(preset="tiny").eval()
    nn.init.zeros_(net.deconvs[0].weight)
    x = torch.rand(1, 1, 8, 8)
    expected = net.shortcuts[0](net.convs[0](x)) + net.deconvs[0].bias.view(1, -1, 1, 1)
    torch.testing.assert_close(net(x), expected)
