"""LiteSeg: a mobile trunk, dilations side by side with a further convolution each, and a finer map joined.

Family: real-time
Paper: Emara, Abd El Munim, Abbas 2019, LiteSeg: A novel lightweight ConvNet for semantic segmentation, arXiv:1912.06683

Presets:
    mobilenet_v2: MobileNetV2 of stride 32: 3,101,707 parameters for 3 channels and 19 classes in 2D; the paper's 4.38 million are
        these and the 1,281,000 of the trunk's idle classifier.
    tiny: a narrow trunk of stride 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, mobilenet_v2, scaled
from medseg.models._blocks import NormName, Positive, Width
from medseg.models._context import ImagePooling, Joined
from medseg.models._convs import Act, finished, relu, unit
from medseg.models._resizing import resize_like
from medseg.models._segmenter import Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of a LiteSeg.

    Args:
        width: of the trunk, 1 for the paper's.
        stride: of the trunk's last map, 8, 16 or 32.
        channels: of each branch, and of the units before the scores.
        rates: dilations of the branches beside that of 1x1.
        norm: after each convolution.
    """

    width: Width = 1.0
    stride: OutputStride = 32
    channels: Positive = 96
    rates: tuple[Positive, ...] = (3, 6, 9)
    norm: NormName = "batch"


PRESETS = {"mobilenet_v2": Config(), "tiny": Config(width=1 / 8, stride=8, channels=8, rates=(2, 4))}
FINE = 1  # the map of stride 4


class Head(nn.Module):
    """From a trunk's last map, and one that is finer, to scores (figure 1)."""

    def __init__(self, deep: nn.Module, scores: nn.Module) -> None:
        super().__init__()
        self.deep, self.scores = deep, scores

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        fine = maps[FINE]
        return self.scores(torch.cat((resize_like(self.deep(maps[-1]), fine), fine), dim=1))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A MobileNetV2 with its last 1x1 unit, the deeper ASPP beside the map itself, two separable units, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = mobilenet_v2(dims, in_channels, width=config.width, norm=norm, output_stride=config.stride)
    wide = scaled(1280, config.width)

    def split(inputs: int, kernel: int = 3, dilation: int = 1, act: Act = relu) -> nn.Module:
        each = _blocks.conv(dims, inputs, inputs, kernel, dilation=dilation, groups=inputs, bias=False)
        layer = nn.Sequential(each, _blocks.conv(dims, inputs, width, 1, bias=norm == "none"))
        return finished(layer, width, norm, act)

    branches: list[nn.Module] = [nn.Identity(), split(wide, 1, act=None)]
    branches += [nn.Sequential(split(wide, dilation=rate, act=None), split(width)) for rate in config.rates]
    branches.append(ImagePooling(dims, wide, width, norm=norm))
    deep = nn.Sequential(
        unit(dims, trunk.channels[-1], wide, 1, norm=norm, act=nn.ReLU6),
        Joined(branches),
        split(wide + width * (len(branches) - 1), 1),
    )
    scores = nn.Sequential(
        split(width + trunk.channels[FINE]), split(width), _blocks.conv(dims, width, out_channels, 1)
    )
    return _blocks.initialise(Segmenter(trunk, Head(deep, scores)))
