"""Dense networks: each layer sees the maps of all layers before it.

Huang, Liu, van der Maaten, Weinberger 2017, Densely connected convolutional networks, arXiv:1608.06993, table 1 (DenseNet-BC).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones._trunk import Pace, Trunk, scaled
from medseg.models._blocks import NormName
from medseg.models._convs import DenseLayer, ahead, relu, sliding_max, unit

DenseNetDepth = Literal[13, 121, 161, 169, 201]
# Channels of the first convolution, growth, layers of the blocks. 13 is smaller than any of the paper.
DEPTHS = {
    13: (64, 32, (1, 1, 1, 1)),
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
}
NARROWING = 4  # a layer's 1x1 convolution has so many times the channels that it adds


def densenet(
    dims: int,
    inputs: int,
    depth: int = 121,
    *,
    width: float = 1.0,
    norm: NormName = "batch",
    output_stride: int = 32,
) -> Trunk:
    """Five maps: of the stem (stride 2) and of the four dense blocks, the last one normalised.

    Args:
        dims: spatial axes.
        inputs: channels of the image.
        depth: 121, 161, 169 or 201; 13 is smaller than any of the paper.
        width: of the stem and of the growth, 1 for the paper's.
        norm: before each convolution.
        output_stride: 8, 16 or 32: later poolings are left out and convolutions dilated.
    """
    base, growth, blocks = DEPTHS[depth]
    channel, growth = scaled(base, width), scaled(growth, width)

    pace = Pace(output_stride)
    stages = [unit(dims, inputs, channel, 7, pace.step(2), norm=norm)]
    channels, strides = [channel], [pace.stride]
    for index, count in enumerate(blocks):
        stage = nn.Sequential()
        stride = pace.step(2)
        if index == 0:
            stage.append(sliding_max(dims, stride))
        else:
            stage.append(ahead(dims, channel, channel // 2, 1, norm=norm))
            stage.extend([_blocks.mean_pool(dims)] if stride == 2 else [])
            channel //= 2
        for _ in range(count):
            layer = ahead(dims, channel, NARROWING * growth, 1, norm=norm)
            layer.extend(ahead(dims, NARROWING * growth, growth, dilation=pace.dilation, norm=norm))
            stage.append(DenseLayer(layer))
            channel += growth
        stages.append(stage)
        channels.append(channel)
        strides.append(pace.stride)
    stages[-1].extend([_blocks.norm(norm, channel), relu()])
    return Trunk(stages, channels, strides)
