"""What all trunks have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

OutputStride = Literal[8, 16, 32]


class Trunk(nn.Module):
    """Stages in a row, of which each sees the map of the one before.

    Called with an image `(B, C, *spatial)` of any size it gives the maps of all stages, finest first; axis n of a map of
    stride s has `ceil(n / s)` elements. A trunk whose stages are not in a row has its own `forward` of the same kind.

    Attributes:
        channels: of the maps, finest first.
        strides: of the maps, against the image.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class Stages(nn.ModuleList):
    """A trunk's stages where a network has more to do between them, such as to note where a pooling found its maxima."""


class Pace:
    """Strides of a trunk's steps down until an output stride is reached; from there, convolutions reach further instead.

    The hole algorithm (Chen et al. 2015, arXiv:1412.7062, 3.1): a step of stride s that is left out multiplies the dilation of
    all later convolutions by s, so that they see the same voxels.

    Attributes:
        stride: reached so far.
        dilation: of the convolutions at this point.
    """

    def __init__(self, output_stride: int) -> None:
        self.limit, self.stride, self.dilation = output_stride, 1, 1

    def step(self, stride: int) -> int:
        """The stride to take for one that was meant: that one, or 1 beyond the limit."""
        if self.stride * stride <= self.limit:
            self.stride *= stride
            return stride
        self.dilation *= stride
        return 1


def scaled(channels: int, width: float) -> int:
    """A number of channels in a network of another width; 2 at least."""
    return max(2, round(channels * width))


def steady(trunk: Trunk) -> Trunk:
    """A trunk whose batch normalisations add 0.001 to each variance, where torch's add 0.00001.

    So do the authors', and weights that were trained so give other maps without it: some of their channels hardly vary.
    """
    for part in trunk.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eps = 1e-3
    return trunk
