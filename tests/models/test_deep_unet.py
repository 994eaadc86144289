import torch
from torch import nn

from medseg.models import create_model


def test_weights(count):
    """By hand: of each of seven levels 32 to 64 to 32 down and 64 to 64 to 32 up, with scale and shift before them."""
    down = 9 * (32 * 64 + 64 * 32) + 64 + 32 + 2 * (32 + 64)
    up = 9 * (64 * 64 + 64 * 32) + 64 + 32 + 2 * (64 + 64)
    assert count("deep_unet", "paper", 2, 3, 1) == (27 * 32 + 32) + 7 * (down + up) + 2 * 32 + 32 + 1


def test_blocks_that_add_nothing_leave_maxima_and_doublings():
    net = create_model("deep_unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", norm="none").eval()
    for block in (*net.downs, *net.ups):
        nn.init.zeros_(block[-1].weight)
    x = torch.rand(1, 1, 8, 8)
    seen = []
    net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    coarsest = nn.functional.max_pool2d(net.stem(x), 4)
    torch.testing.assert_close(seen[0], coarsest.repeat_interleave(4, 2).repeat_interleave(4, 3))
