import torch
from torch import nn

from medseg.models import create_model


def test_weights_of_the_paper():
    """It counts those of convolutions alone."""
    with torch.device("meta"):
        net = create_model("dilated_gm_net", spatial_dims=2, in_channels=1, out_channels=1)
    convs = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert sum(weight.numel() for conv in convs for weight in conv.parameters()) == 124_769
    assert sum(weight.numel() for weight in net.parameters()) == 124_769 + 1408


def test_nothing_loses_resolution():
    net = create_model("dilated_gm_net", spatial_dims=3, in_channels=1, out_channels=2, preset="tiny").eval()
    sizes = set()
    for part in net.modules():
        part.register_forward_hook(lambda _, inputs, y: sizes.add(tuple(y.shape[2:])))
    net(torch.randn(1, 1, 7, 6, 5))
    assert sizes == {(7, 6, 5)}


def test_the_mean_branch_sees_the_whole_image():
    net = create_model("dilated_gm_net", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    x = torch.randn(1, 1, 60, 8)
    before = net(x)[..., -5:, :]
    x[..., :5, :] += 3
    assert (net(x)[..., -5:, :] - before).abs().max() > 1e-6
