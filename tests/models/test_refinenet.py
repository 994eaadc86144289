import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters


@pytest.mark.parametrize(("preset", "millions"), [("resnet50", 99), ("resnet101", 118), ("resnet152", 134)])
def test_weights(preset, millions):
    """As Nekrasov et al. 2018, Light-weight RefineNet, arXiv:1810.03272, table 1, count the networks that they make lighter."""
    assert (
        round(parameters("refinenet", preset=preset, spatial_dims=2, in_channels=3, out_channels=21) / 1e6) == millions
    )


def test_weights_by_hand():
    wide, narrow = 512 * 512 * 9, 256 * 256 * 9
    unit = 2 * (narrow + 256)
    coarsest = 3 * 2 * (wide + 512) + 4 * (wide + 512)
    paths = 3 * unit + 4 * (narrow + 256)  # of a block: two units in, one out, four poolings
    mixed = paths + 2 * (wide + 512) * 2 + 512 * 256 * 9 + narrow
    fine = paths + 2 * unit + 2 * narrow
    ways_in = 9 * (256 * 256 + 512 * 256 + 1024 * 256 + 2048 * 512)
    expected = 42_500_160 + ways_in + coarsest + mixed + 2 * fine + 2 * unit + 256 * 21 * 9 + 21
    assert parameters("refinenet", spatial_dims=2, in_channels=3, out_channels=21) == expected == 118_063_957


def test_residual_units_that_say_nothing_leave_fusion_and_pooling():
    net = create_model("refinenet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    block = net.head[0].blocks[0]
    for part in block.modules():
        if isinstance(part, nn.ReLU):
            part.register_forward_hook(lambda module, inputs, y: y * 0)
    fine, coarse = torch.randn(1, 6, 8, 8), torch.randn(1, 6, 4, 4)
    grown = nn.functional.interpolate(block.paths[1][-1](coarse), (8, 8), mode="bilinear")
    y = (block.paths[0][-1](fine) + grown).relu()
    one = block.after[0].steps[0](y)
    expected = y + one + block.after[0].steps[1](one)
    torch.testing.assert_close(block(fine, coarse), expected)
