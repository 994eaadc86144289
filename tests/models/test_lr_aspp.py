import torch
from torch import nn

from medseg.models import create_model, parameters


def test_weights():
    assert parameters("lr_aspp", spatial_dims=2, in_channels=3, out_channels=21) == 3_221_538


def test_the_image_weighs_the_coarse_map():
    """Weights that close every channel leave the scores of the finer map."""
    net = create_model("lr_aspp", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    maps = net.trunk(torch.randn(1, 1, 32, 32))
    fine = net.head.fine(maps[2])
    assert not torch.allclose(net.head(maps), fine)
    net.head.weights[1] = nn.Threshold(torch.inf, 0.0)
    torch.testing.assert_close(net.head(maps), fine)
