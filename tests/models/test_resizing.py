import pytest
import torch
from torch import nn

from medseg.models import _resizing


@pytest.mark.parametrize("size", [(7, 10), (5, 1, 9)], ids=str)
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_means_over_ranges_are_adaptive_pooling(size, bins):
    x = torch.randn(2, 3, *size)
    pool = nn.AdaptiveAvgPool2d(bins) if len(size) == 2 else nn.AdaptiveAvgPool3d(bins)
    torch.testing.assert_close(_resizing.mean_to(x, bins), pool(x))


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (1, 3), (5, 1, 4)], ids=str)
def test_unpooling_puts_maxima_where_they_were(size):
    x = torch.rand(2, 3, *size) + 1
    maxima, where = _resizing.max_pool_where(x)
    assert maxima.shape[2:] == tuple(-(-n // 2) for n in size)
    back = _resizing.unpool(maxima, where, x.shape[2:])
    assert torch.equal(back[back != 0], x[back != 0])
    assert int((back != 0).sum()) == maxima.numel()
    assert torch.equal(_resizing.max_pool_where(back)[0], maxima)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [2, 8])
def test_a_new_bilinear_deconvolution_interpolates(dims, stride):
    x = torch.randn(1, 3, *(4, 5, 3)[:dims])
    up = _resizing.BilinearUp(dims, 3, stride)(x)
    mode = "bilinear" if dims == 2 else "trilinear"
    expected = nn.functional.interpolate(x, scale_factor=stride, mode=mode)
    inner = (..., *[slice(stride, -stride)] * dims)  # at the border a deconvolution has nothing beyond it
    torch.testing.assert_close(up[inner], expected[inner])
    assert up.shape == expected.shape


@pytest.mark.parametrize("stride", [2, 3])
def test_pixel_shuffle(stride):
    x = torch.randn(2, 3 * stride**2, 4, 5)
    assert torch.equal(_resizing.PixelShuffle(stride)(x), nn.PixelShuffle(stride)(x))
    block = torch.arange(8.0).view(1, 8, 1, 1, 1)
    assert torch.equal(_resizing.PixelShuffle(2)(block).flatten(), block.flatten())


def test_a_map_of_one_element_and_one_of_the_size_already():
    one, reference = torch.randn(1, 2, 1, 1), torch.zeros(1, 1, 4, 3)
    assert torch.equal(_resizing.resize_like(one, reference), one.expand(1, 2, 4, 3))
    assert _resizing.resize_like(reference, reference) is reference
