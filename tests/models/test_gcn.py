import pytest
import torch
from torch import nn

from medseg.models import create_model, parameters
from medseg.models._context import LargeKernel


@pytest.mark.parametrize(("k", "thousands"), [(3, 260), (5, 434), (7, 608), (9, 782)])
def test_weights_of_one_large_kernel(k, thousands):
    """The paper's count for 2048 channels to 21, biases apart: far below the 2048 * 21 * k * k of a plain kernel."""
    with torch.device("meta"):
        layer = LargeKernel(2, 2048, 21, k)
    assert sum(weight.numel() for weight in layer.parameters() if weight.ndim > 1) // 1000 == thousands


def test_weights():
    """By hand: four large kernels and their refinements, five steps up of 4x4 and theirs."""
    kernels = sum(2 * (channels * 21 * 15 + 21 * 21 * 15 + 2 * 21) for channels in (256, 512, 1024, 2048))
    refinement = 2 * (21 * 21 * 9 + 21)
    expected = 58_143_808 + kernels + 9 * refinement + 5 * 21 * 21 * 16
    assert parameters("gcn", spatial_dims=2, in_channels=3, out_channels=21) == expected == 60_723_364


def test_without_refinements_it_is_the_sum_of_all_scores_interpolated():
    net = create_model("gcn", spatial_dims=2, in_channels=1, out_channels=2, preset="tiny").eval()
    for refinement in (*net.refinements, *(score[1] for score in net.scores)):
        nn.init.zeros_(refinement.body[2].weight)
    x = torch.randn(1, 1, 64, 64)
    sums = [score(map_) for score, map_ in zip(net.scores, net.trunk(x)[1:], strict=True)]
    y = sums.pop()
    for up in net.ups:
        y = up(y) + (sums.pop() if sums else 0)
    torch.testing.assert_close(net(x), y)
