import pytest
import torch
from torch import nn

from medseg.models import create_model
from medseg.models.r2_unet import Recurrent


def test_weights_of_the_paper(count):
    assert count("r2_unet", "paper", 2, 3, 1) == 39_091_393


@pytest.mark.parametrize(("returns", "times"), [(1, 3), (2, 7), (3, 15)])
def test_a_convolution_sees_its_own_answer(returns, times):
    """Of a doubling d: d(x) = 2x, then d(x + 2x) = 6x, then d(x + 6x) = 14x."""
    double = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(double.weight, 2.0)
    x = torch.rand(1, 1, 3, 3)
    torch.testing.assert_close(Recurrent(double, returns)(x), 2 * times * x)


def test_returns_share_their_weights():
    few, many = (
        create_model("r2_unet", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", returns=n) for n in (1, 5)
    )
    assert [weight.shape for weight in few.parameters()] == [weight.shape for weight in many.parameters()]


def test_each_return_reaches_one_voxel_further():
    unit = Recurrent(nn.Conv1d(1, 1, 3, padding=1, bias=False), returns=2)
    nn.init.ones_(unit.conv.weight)
    impulse = torch.zeros(1, 1, 15)
    impulse[..., 7] = 1
    assert unit(impulse)[0, 0].nonzero().flatten().tolist() == list(range(4, 11))
