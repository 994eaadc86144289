"""EMANet: a map rebuilt from few bases, which expectation and maximisation find in each image, on a dilated trunk.

Family: attention
Paper: Li, Zhong, Wu, Yang, Lin, Liu 2019, Expectation-maximization attention networks for semantic segmentation, arXiv:1907.13426
Without: ONNX (it becomes one of a fixed number of windows)

Presets:
    resnet50: ResNet-50 of stride 8, 64 bases of 512 channels, three steps: 34,657,107 parameters for 3 channels and 19 classes in 2D.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow, 4 bases.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import Positive, Share, Times
from medseg.models._convs import unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._regions import EMAttention
from medseg.models._segmenter import Pick, segmenter


class Config(StemOptions):
    """Options of an EMANet, besides those of `_dilated.StemOptions`.

    Args:
        multi_grid: what each block of the last stage multiplies its dilation by, in turn; (1,) leaves it.
        channels: of the map that is rebuilt, and of its bases.
        bases: their number.
        steps: of expectation and maximisation.
        momentum: share of the former bases that a training step keeps for the next image to begin from.
        norm: after each convolution but that before the bases.
    """

    multi_grid: tuple[Positive, ...] = (1, 2, 4)
    channels: Annotated[int, Field(ge=2)] = 512
    bases: Positive = 64
    steps: Times = 3
    momentum: Share = 0.9


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "tiny": Config(depth=10, width=1 / 16, channels=8, bases=4),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet; between two 3x3 units, attention to the bases; scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config, config.multi_grid)
    last = trunk.channels[-1]
    head = nn.Sequential(
        Pick(-1),
        unit(dims, last, width, norm=norm),
        EMAttention(dims, width, config.bases, config.steps, config.momentum, norm=norm),
        unit(dims, width, width // 2, norm=norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width // 2, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
