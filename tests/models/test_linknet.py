import torch
from torch import nn

from medseg.models import create_model, parameters


def test_weights():
    assert parameters("linknet", spatial_dims=2, in_channels=3, out_channels=21) == 11_535_893


def test_what_a_stage_saw_is_added_to_its_way_back():
    net = create_model("linknet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    x = torch.randn(1, 1, 44, 32)
    maps = net.trunk(x)
    for block in net.decoder:
        nn.init.zeros_(block[2][1].weight)  # the last normalisation: what the block gives is 0
    first = net.pool(maps[0])
    torch.testing.assert_close(net(x), net.head(first)[..., :44, :32])
    seen = []
    net.decoder[0].register_forward_hook(lambda _, inputs, y: seen.append((inputs[0].shape[1], y.shape[1])))
    net(x)
    assert seen == [(maps[4].shape[1], maps[3].shape[1])]
