import itertools

import torch
from torch import nn

from medseg.models import create_model
from medseg.models._convs import Residual


def test_weights(count):
    """By hand: two 3x3 convolutions a stage and a 1x1 beside them, scale and shift, steps up of 2x2, nine stages."""
    widths = (64, 128, 256, 512, 1024)
    stages = [(3, 64), *itertools.pairwise(widths), *((2 * n, n) for n in widths[:-1])]
    convolutions = sum(9 * (a * b + b * b) + 2 * b + a * b + b + 4 * b for a, b in stages)
    steps = sum(4 * 2 * n * n + n for n in widths[:-1])
    assert count("res_unet", "paper", 2, 3, 1) == convolutions + steps + 64 + 1


def test_a_unit_without_weights_rectifies_its_input():
    net = create_model(
        "res_unet", spatial_dims=2, in_channels=3, out_channels=2, widths=(3, 4), strides=(2,), norm="none"
    )
    unit = next(part for part in net.modules() if isinstance(part, Residual))
    for weight in unit.parameters():
        nn.init.zeros_(weight)
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(unit(x), x.relu())
