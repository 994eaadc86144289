import torch
from torch import nn

from medseg.models import create_model
from medseg.models._convs import Residual
from medseg.models.fc_resnet import Config, residual


def test_layers_of_the_papers_table():
    """Two ends, a pair down and up, bottlenecks of 3, 8 and 10 blocks down and up, 3 across: 141 convolutions and a classifier."""
    with torch.device("meta"):
        net = create_model("fc_resnet", spatial_dims=2, in_channels=1, out_channels=2, preset="plain")
        seen = []
        for stage in (*net.encoder, net.bottom, *net.decoder):
            stage.register_forward_hook(lambda _, inputs, y: seen.append((64 // y.shape[2], y.shape[1])))
        net(torch.zeros(1, 1, 64, 64))
    down = [(1, 32), (2, 32), (4, 128), (8, 256), (16, 512)]
    assert seen == [*down, (16, 1024), (16, 512), (8, 256), (4, 128), (2, 32)]
    in_units = sum(
        isinstance(part, nn.Conv2d) for unit in net.modules() if isinstance(unit, Residual) for part in unit.body
    )
    assert in_units == 3 * (2 * (3 + 8 + 10) + 3) + 2 * 2


def test_the_normaliser_makes_an_image_that_the_network_is_given():
    net = create_model("fc_resnet", spatial_dims=2, in_channels=3, out_channels=2, preset="tiny").eval()
    x, seen = torch.rand(1, 3, 9, 7), []
    net.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    assert torch.equal(seen[0], net.normaliser(x))
    assert seen[0].shape == x.shape


def test_without_a_normaliser_the_network_is_given_the_image(count):
    net = create_model("fc_resnet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", normaliser=None)
    assert isinstance(net.normaliser, nn.Identity)
    assert count("fc_resnet", "plain", 2, 1, 2) < count("fc_resnet", "paper", 2, 1, 2)


def test_a_block_without_weights_passes_its_input():
    block = residual(2, 8, 8, 1, Config(), bottleneck=True)
    for weight in block.body[-1].parameters():
        nn.init.zeros_(weight)
    x = torch.rand(1, 8, 5, 5)
    assert torch.equal(block(x), x)
