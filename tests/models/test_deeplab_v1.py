import torch
from torch import nn

from medseg.models import create_model, parameters

FOR_21 = {"spatial_dims": 2, "in_channels": 3, "out_channels": 21}


def test_weights():
    assert parameters("deeplab_v1", **FOR_21) == 20_505_429


def test_weights_of_the_sides():
    """Each of image and four maps: 3x3 to 128 channels, 1x1, and its part of the scores (section 4.2: 5 x 128 channels)."""
    sides = sum(9 * inputs * 128 + 128 + 128 * 128 + 128 + 128 * 21 for inputs in (3, 64, 128, 256, 512))
    assert parameters("deeplab_v1", preset="multi_scale", **FOR_21) == 20_505_429 + sides


def test_field_of_view():
    """Table 2: a kernel of 3x3, an "input stride" of 12, on a map of stride 8."""
    with torch.device("meta"):
        net = create_model("deeplab_v1", **FOR_21)
    assert net.trunk.strides == (1, 2, 4, 8, 8)
    conv = net.view[1][0][0]
    assert (conv.kernel_size, conv.dilation) == ((3, 3), (12, 12))
    rates = {part.dilation[0] for part in net.trunk.stages[-1].modules() if isinstance(part, nn.Conv2d)}
    assert rates == {2}


def test_all_that_is_seen_has_one_size():
    net = create_model("deeplab_v1", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    sizes = []
    for part in (net.view, *net.sides):
        part.register_forward_hook(lambda _, inputs, y: sizes.append(tuple(y.shape[1:])))
    net(torch.randn(1, 1, 37, 50))
    assert sizes == [(8, 5, 7), *[(4, 5, 7)] * 5]
