import pytest
import torch
from torch import nn

from medseg.models import create_model


@pytest.mark.parametrize(("preset", "convolutions"), [("167", 167), ("65", 65)])
def test_a_variant_is_called_after_its_convolutions(preset, convolutions):
    with torch.device("meta"):
        net = create_model("dense_unet", spatial_dims=2, in_channels=3, out_channels=3, preset=preset)
    assert sum(isinstance(part, nn.modules.conv._ConvNd) for part in net.modules()) == convolutions


def test_channels_of_167():
    """Table 1: those of DenseNet-161 down, 768, 384, 96, 96 and 64 up."""
    with torch.device("meta"):
        net = create_model("dense_unet", spatial_dims=2, in_channels=3, out_channels=3)
        down, up = [], []
        for parts, seen in ((net.encoder, down), (net.decoder, up)):
            for part in parts:
                part.register_forward_hook(lambda _, inputs, y, seen=seen: seen.append((64 // y.shape[2], y.shape[1])))
        net(torch.zeros(1, 3, 64, 64))
    assert down == [(2, 96), (4, 384), (8, 768), (16, 2112), (32, 2208)]
    assert up == [(16, 768), (8, 384), (4, 96), (2, 96), (1, 64)]


def test_what_is_found_on_the_way_down_is_added():
    net = create_model("dense_unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    seen, maps = [], []
    for stage in net.encoder:
        stage.register_forward_hook(lambda _, inputs, y: maps.append(y))
    net.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.rand(1, 1, 8, 8))
    torch.testing.assert_close(seen[0], net.sides[0](maps[-2]) + net.doubles[0](maps[-1]))


def test_the_last_convolution_alone_is_followed_by_dropout():
    """As in the authors' code: 0.3 of its values, before its normalisation."""
    with torch.device("meta"):
        net = create_model("dense_unet", spatial_dims=2, in_channels=3, out_channels=3)
    dropped = [name for name, part in net.named_modules() if isinstance(part, nn.Dropout)]
    assert dropped == ["decoder.4.1"]
    assert net.decoder[4][1].p == 0.3
    assert isinstance(net.decoder[4][0], nn.Conv2d)
