import pytest
import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.models import create_model, parameters


def test_weights():
    """A ResNet-101 whose 7x7 became three 3x3, and four branches of 4 x 4 scores of each class."""
    stem = 27 * 64 + 9 * 64 * 64 + 9 * 64 * 128 + 2 * (64 + 64 + 128) - (3 * 49 * 64 + 2 * 64)
    doubled = 64 * 64 + 64 * 256  # the first block sees 128 channels
    branches = 4 * (9 * 2048 * 19 * 16 + 19 * 16)
    found = parameters("duc_hdc", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == 42_500_160 + stem + doubled + branches


def test_dilations_change_from_block_to_block():
    with torch.device("meta"):
        net = create_model("duc_hdc", spatial_dims=2, in_channels=3, out_channels=19)
    rates = [
        [part.dilation[0] for part in stage.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
        for stage in net.trunk.stages
    ]
    assert rates[3] == [1, 2, 5, 9] * 5 + [1, 2, 5]
    assert rates[4] == [5, 9, 17]
    assert net.trunk.strides[-1] == 8


def test_a_stage_without_dilations_is_refused():
    with pytest.raises(ConfigError, match=r"^model\.hybrid.*$"):
        create_model("duc_hdc", spatial_dims=2, in_channels=1, out_channels=2, hybrid=((1, 2), ()))


def test_each_cell_has_scores_of_its_own():
    net = create_model("duc_hdc", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny", cell=1).eval()
    branch = net.head[0].branches[0]
    for part in net.head[0].branches:
        nn.init.zeros_(part.weight)
    with torch.no_grad():
        branch.bias.copy_(torch.arange(2.0 * 64))
    block = torch.arange(64.0).view(8, 8)
    expected = torch.stack((block, block + 64))[None].repeat(1, 1, 2, 2)[..., :13, :9]
    torch.testing.assert_close(net(torch.randn(1, 1, 13, 9)), expected)
