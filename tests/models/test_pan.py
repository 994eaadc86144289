import torch
from torch import nn

from medseg.models import create_model, parameters


def test_weights():
    """By hand, all convolutions with a bias and a normalisation: as in segmentation-models-pytorch, of which this is the decoder."""

    def unit(inputs: int, outputs: int, area: int) -> int:
        return inputs * outputs * area + 3 * outputs

    image = 2048 * 32 + 2 * 32  # its normalisation makes a bias idle
    attention = unit(2048, 32, 1) + unit(2048, 1, 49) + 2 * unit(1, 1, 25) + 2 * unit(1, 1, 9) + unit(1, 1, 49)
    ups = sum(unit(channels, 32, 9) + unit(32, 32, 1) for channels in (256, 512, 1024))
    expected = 23_508_032 + image + attention + ups + 32 * 21 * 9 + 21
    assert (
        parameters("pan", preset="resnet50", spatial_dims=2, in_channels=3, out_channels=21) == expected == 24_265_564
    )


def test_without_weights_the_image_alone_is_left():
    net = create_model("pan", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    attention, x = net.head[0].attention, torch.randn(1, net.trunk.channels[-1], 9, 7)
    for part in (*attention.down, *attention.across):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
    torch.testing.assert_close(attention(x), attention.image(x))


def test_a_finer_map_without_weight_adds_nothing():
    net = create_model("pan", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    up = net.head[0].ups[-1]
    nn.init.zeros_(up.weigh[0].weight)
    coarse = torch.randn(1, 10, 4, 4)
    grown = nn.functional.interpolate(coarse, (8, 8), mode="bilinear")
    torch.testing.assert_close(up(coarse, torch.randn(1, net.trunk.channels[1], 8, 8)), grown)
