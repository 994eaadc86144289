import pytest
import torch
from torch import nn

from medseg.models import create_model
from medseg.models._recurrent import BothWays


def make(dims=3):
    torch.manual_seed(0)
    return create_model("conv_lstm_unet", spatial_dims=dims, in_channels=1, out_channels=2, preset="tiny").eval()


@pytest.mark.parametrize("size", [(8, 8, 5), (7, 9, 1)], ids=str)
def test_slices_are_not_coarsened(size):
    net, seen = make(), []
    for stage in net.encoder:
        stage.register_forward_hook(lambda _, inputs, y: seen.append(y.shape[-1]))
    net(torch.rand(1, 1, *size))
    assert seen == [size[-1]] * 3


def test_slices_speak_through_the_lstms_alone():
    net, x = make(), torch.rand(1, 1, 8, 8, 5)
    changed = x.clone()
    changed[..., 2] += 1
    reached = (net(changed) - net(x)).abs().amax((0, 1, 2, 3))
    assert (reached > 1e-6).all()
    for part in net.modules():
        if isinstance(part, BothWays):
            for way in (part.up, part.down):
                nn.init.zeros_(way.remember.weight)
                with torch.no_grad():  # a shut forget gate
                    half = way.see.bias.shape[0] // 4
                    way.see.bias[:half] = -1000
    reached = (net(changed) - net(x)).abs().amax((0, 1, 2, 3))
    assert (reached > 1e-6).tolist() == [False, False, True, False, False]
