import torch
from torch import nn

from medseg.models import parameters
from medseg.models.apc_net import AdaptiveContext


def test_weights():
    """Derived from figure 3: for each grid two units of 2048 to 512, three of 512, and a weight for each region."""
    grids = 4 * (2 * (2048 * 512 + 1024) + 3 * (512 * 512 + 1024)) + 513 * (1 + 4 + 9 + 36)
    found = parameters("apc_net", preset="resnet50", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == 23_508_032 + grids + (4096 * 512 * 9 + 1024) + 513 * 19


def test_even_weights_sum_the_regions():
    """Where every weight is sigmoid(0), a voxel's context is half the sum of the regions, of which there are bins**dims."""
    part = AdaptiveContext(3, 4, 4, 2, "none")
    nn.init.zeros_(part.weights.weight)
    nn.init.zeros_(part.weights.bias)
    x, seen = torch.randn(1, 4, 4, 6, 2), []
    part.mixed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    part(x)
    cells = torch.nn.functional.adaptive_avg_pool3d(x, 2)
    expected = part.regions(cells).sum((2, 3, 4), keepdim=True) / 2
    torch.testing.assert_close(seen[0], expected.expand_as(seen[0]))
