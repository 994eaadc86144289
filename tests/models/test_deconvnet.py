import torch
from torch import nn

from medseg.models import create_model, parameters


def test_weights_and_convolutions():
    assert parameters("deconvnet", spatial_dims=2, in_channels=3, out_channels=21) == 251_805_653
    with torch.device("meta"):
        net = create_model("deconvnet", spatial_dims=2, in_channels=3, out_channels=21)
    convs = [
        sum(isinstance(part, nn.Conv2d) for part in half.modules()) for half in (net.encoder, net.middle, net.decoder)
    ]
    assert convs == [13, 3, 13 + 1]


def test_values_go_back_where_the_pooling_found_them():
    """With stages that do nothing, only the maxima over blocks of 32 are left, each in its place."""
    net = create_model("deconvnet", spatial_dims=2, in_channels=1, out_channels=1, preset="tiny")
    for stages in (net.encoder, net.decoder):
        for index in range(len(stages)):
            stages[index] = nn.Identity()
    net.middle = nn.Identity()
    x = torch.rand(1, 1, 70, 40) + 1
    found = net(x)
    blocks = nn.functional.max_pool2d(x, 32, ceil_mode=True)
    assert torch.equal(found[found > 0], x[found > 0])
    assert torch.equal(nn.functional.max_pool2d(found, 32, ceil_mode=True), blocks)
    assert int((found > 0).sum()) == blocks.numel()


def test_the_coarsest_map_may_be_smaller_than_the_kernel_upon_it():
    net = create_model("deconvnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", reach=7).eval()
    assert net(torch.randn(1, 1, 40, 9)).shape == (1, 2, 40, 9)
