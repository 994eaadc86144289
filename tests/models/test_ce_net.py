import pytest
import torch
from torch import nn

from medseg.models import create_model
from medseg.models.ce_net import DenseAtrous, MultiPool


def test_weights_of_the_paper(count):
    """ResNet-34, four shared convolutions, a shared score, and the way up."""
    trunk = 21_284_672
    bottom = 3 * (9 * 512 * 512 + 512) + 512 * 512 + 512 + 512 + 1

    def step(a, b):
        q = a // 4
        return (a * q + q + 2 * q) + (9 * q * q + q + 2 * q) + (q * b + b + 2 * b)

    ups = step(516, 256) + step(256, 128) + step(128, 64) + step(64, 64)
    head = 16 * 64 * 32 + 32 + 9 * 32 * 32 + 32 + 9 * 32 + 1
    assert count("ce_net", "resnet34", 2, 3, 1) == trunk + bottom + ups + head == 29_003_093


def test_how_far_the_branches_see():
    """Together 19 voxels: 1 + 3 + 5 to each side."""
    block = DenseAtrous(2, 1).double()
    for weight in block.parameters():
        nn.init.constant_(weight, 0.1)
    x = torch.rand(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(block(x)[0, 0, 15, 15], x)
    assert int((slope[0, 0].abs().sum(1) > 0).sum()) == 19


def test_pooled_channels_stand_before_the_map():
    block = MultiPool(2, 2, (2, 3))
    nn.init.zeros_(block.point.bias)
    x = torch.rand(1, 2, 6, 6)
    y = block(x)
    assert torch.equal(y[:, 2:], x)
    nn.init.ones_(block.point.weight)
    small = nn.functional.max_pool2d(x, 3).sum(1, keepdim=True)
    expected = nn.functional.interpolate(small, (6, 6), mode="bilinear")
    torch.testing.assert_close(block(x)[:, 1:2], expected)


@pytest.mark.parametrize("size", [(40, 33), (1, 7)], ids=str)
def test_steps_up_meet_the_trunks_maps(size):
    net = create_model("ce_net", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    assert net(torch.rand(1, 1, *size)).shape[2:] == size
