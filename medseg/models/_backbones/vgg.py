"""VGG: stages of 3x3 convolutions between poolings.

Simonyan, Zisserman 2015, Very deep convolutional networks for large-scale image recognition, arXiv:1409.1556, table 1.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones._trunk import Pace, Trunk, scaled
from medseg.models._blocks import NormName, Size
from medseg.models._convs import finished, relu, sliding_max

VGGDepth = Literal[8, 11, 13, 16, 19]
# Convolutions of the five stages. A name counts three fully connected layers too, which trunks do not have.
DEPTHS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


def vgg_channels(width: float = 1.0) -> tuple[int, ...]:
    """Channels of the five stages."""
    return tuple(scaled(channels, width) for channels in CHANNELS)


def vgg_stage(
    dims: int, inputs: int, outputs: int, convs: int, *, norm: NormName = "none", dilation: int = 1
) -> nn.Sequential:
    """Convolutions with their rectifiers. All have a bias, those before a normalisation too, as in the published weights."""
    stage = nn.Sequential()
    for _ in range(convs):
        stage.append(finished(_blocks.conv(dims, inputs, outputs, dilation=dilation), outputs, norm))
        inputs = outputs
    return stage


def vgg(
    dims: int,
    inputs: int,
    depth: int = 16,
    *,
    width: float = 1.0,
    norm: NormName = "none",
    output_stride: int = 16,
    pool: int = 2,
) -> Trunk:
    """The five stages; each but the first begins with the pooling, so that the maps are those before a pooling.

    Args:
        dims: spatial axes.
        inputs: channels of the image.
        depth: 11 (the paper's A), 13, 16 (D) or 19 (E); 8 is smaller than any of the paper.
        width: of all stages, 1 for 64 to 512 channels.
        norm: after each convolution; the paper has none.
        output_stride: of the last map, 16 or less: later poolings lose their stride and convolutions are dilated.
        pool: size of the pooled blocks; 3 overlaps (DeepLab), and without a stride it still takes maxima.
    """
    pace, stages, strides = Pace(output_stride), list[nn.Module](), []
    for index, (outputs, convs) in enumerate(zip(vgg_channels(width), DEPTHS[depth], strict=True)):
        stride = pace.step(2) if index else 1
        stage = nn.Sequential(_pool(dims, pool, stride)) if index and (stride > 1 or pool > 2) else nn.Sequential()
        stages.append(stage.extend(vgg_stage(dims, inputs, outputs, convs, norm=norm, dilation=pace.dilation)))
        strides.append(pace.stride)
        inputs = outputs
    return Trunk(stages, vgg_channels(width), strides)


class Hidden(nn.Sequential):
    """The two hidden fully connected layers of a VGG as convolutions, a unit each: `--init` looks for it by its class."""


def vgg_hidden(dims: int, inputs: int, hidden: int, kernel: Size, *, dilation: int = 1, dropout: float = 0.5) -> Hidden:
    """These two layers where they keep the size: of the kernel, and of 1x1."""
    first, second = _blocks.conv(dims, inputs, hidden, kernel, dilation=dilation), _blocks.conv(dims, hidden, hidden, 1)
    return Hidden(*(nn.Sequential(conv, relu(), nn.Dropout(dropout)) for conv in (first, second)))


def still_pools(dims: int) -> nn.Sequential:
    """What DeepLab has in place of the last pooling: maxima, then means, of 3 voxels an axis, without a stride."""
    maximum, pad, mean = (
        (nn.MaxPool2d, nn.ZeroPad2d, nn.AvgPool2d) if dims == 2 else (nn.MaxPool3d, nn.ZeroPad3d, nn.AvgPool3d)
    )
    return nn.Sequential(maximum(3, 1, 1), pad(1), mean(3, 1))  # a mean's own padding is refused on small maps in 3D


def _pool(dims: int, size: int, stride: int) -> nn.Module:
    return _blocks.max_pool(dims) if size == 2 else sliding_max(dims, stride)
