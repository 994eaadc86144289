"""Changes of size beyond those of `_blocks`: to the size of another map, back from a pooling, and by learned interpolation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._blocks import Size


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Linear interpolation of a map to the spatial size of another.

    Both are taken to cover the same field (`align_corners=False`): element n of a map of stride s stands for the block of
    voxels from n * s, as it does in pooling, in the losses' comparison of auxiliary logits, and in the published weights. It
    needs no stride, works from a map of one element, and a map of that size already stays as it is.
    """
    size = reference.shape[2:]
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=False)


def resize_by(x: Tensor, scale: float) -> Tensor:
    """The same in a map whose axes have been multiplied by the scale, of one element at least."""
    size = [max(1, round(n * scale)) for n in x.shape[2:]]
    return resize_like(x, x.new_empty(1, 1, *size))


def mean_to(x: Tensor, bins: Size) -> Tensor:
    """Means over `bins` ranges an axis: adaptive average pooling, of which each axis is a small matrix.

    It has a quick way in 3D, one with any runtime, and gradients that repeat on a GPU.
    """
    for axis, count in enumerate(_blocks.ntuple(bins, x.ndim - 2), start=2):
        ranges = _ranges(x.shape[axis], count).to(x)
        x = (x.movedim(axis, -1) @ ranges).movedim(-1, axis)
    return x


def _ranges(size: int, bins: int) -> Tensor:
    """A matrix `(size, bins)`: bin n is the mean of the elements from floor(n size / bins) to ceil((n + 1) size / bins)."""
    columns = torch.zeros(size, bins)
    for n in range(bins):
        first, end = n * size // bins, -(-(n + 1) * size // bins)
        columns[first:end, n] = 1 / (end - first)
    return columns


def global_mean(x: Tensor) -> Tensor:
    """The mean of each channel, as a map of one element."""
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def max_pool_where(x: Tensor, stride: int = 2) -> tuple[Tensor, Tensor]:
    """Maximum over blocks of the stride, and where in the map each was found: what `unpool` takes.

    Sizes are divided rounding up: blocks at the far end may be smaller.
    """
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    maxima, where = pool(x, stride, ceil_mode=True, return_indices=True)
    return maxima, where


def unpool(x: Tensor, where: Tensor, size: torch.Size) -> Tensor:
    """Put each value where the maximum was found, into zeros of the given spatial size.

    Args:
        x: `(B, C, *coarse)`.
        where: of the same shape, from `max_pool_where`.
        size: of the map that was pooled, odd ones included.
    """
    empty = x.new_zeros(*x.shape[:2], size.numel())
    return empty.scatter(2, where.flatten(2), x.flatten(2)).unflatten(2, size)


class BilinearUp(nn.Module):
    """A transposed convolution of classes to classes that begins as linear interpolation and learns (Long et al. 2015, 3.3).

    It has no bias, a kernel of twice its stride, and weights between all channels, which begin at 0 but for those of a
    channel to itself. Not a `torch` layer, so that the general initialisation leaves it alone.
    """

    def __init__(self, dims: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        line = (
            1 - (torch.arange(2 * stride) - stride + 0.5).abs() / stride
        )  # a triangle, whose values sum to the stride
        kernel = line
        for _ in range(dims - 1):
            kernel = kernel[..., None] * line
        itself = torch.eye(channels).view(channels, channels, *[1] * dims)
        self.weight = nn.Parameter(itself * kernel)

    def forward(self, x: Tensor) -> Tensor:
        up = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        return up(x, self.weight, stride=self.stride, padding=self.stride // 2)


class PixelShuffle(nn.Module):
    """Each element's channels become a block of the stride: `(B, C * stride**dims, *n)` to `(B, C, *(n * stride))`.

    Shi et al. 2016, arXiv:1609.05158, equation 4, in any number of axes; in 2D it is `torch.nn.PixelShuffle`.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        size, dims = x.shape[2:], x.ndim - 2
        x = x.unflatten(1, (-1, *[self.stride] * dims))  # (B, C, s, s, s, *n)
        pairs = [axis for n in range(dims) for axis in (2 + dims + n, 2 + n)]
        x = x.permute(0, 1, *pairs)  # (B, C, n, s, n, s, n, s)
        return x.reshape(*x.shape[:2], *(n * self.stride for n in size))


def dense_upsampling(dims: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A convolution that gives every voxel of a block channels of its own (DUC, Wang et al. 2018, arXiv:1702.08502, 3.1)."""
    return nn.Sequential(_blocks.conv(dims, inputs, outputs * stride**dims), PixelShuffle(stride))
