import torch
from torch.nn import functional as F

from medseg.models import parameters
from medseg.models.dm_net import DynamicFilter


def test_weights():
    """Derived from figure 3: for each size a convolution that makes filters, a unit of 2048 to 512, a norm."""
    sizes = 4 * ((2048 * 512 + 512) + (2048 * 512 + 1024) + 1024)
    found = parameters("dm_net", preset="resnet50", spatial_dims=2, in_channels=3, out_channels=19)
    assert found == 23_508_032 + sizes + (4096 * 512 * 9 + 1024) + 513 * 19


def test_each_image_is_filtered_by_its_own_means():
    part, x = DynamicFilter(2, 3, 2, 3, "none"), torch.randn(2, 3, 9, 9)
    found = part(x)
    for image, result in zip(x, found, strict=True):
        filters = part.filter(F.adaptive_avg_pool2d(image[None], 3))  # (1, 2, 3, 3)
        expected = F.conv2d(part.voxels(image[None]), filters[0][:, None], padding=1, groups=2).relu()
        torch.testing.assert_close(result[None], expected)
