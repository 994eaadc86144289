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

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import resnet
from medseg.models._blocks import NormName, Positive
from medseg.models._convs import unit
from medseg.models._regions import EMAttention
from medseg.models._segmenter import Pick, Segmenter, fcn_head
from medseg.settings import Settings


class Config(Settings):
    """Options of an EMANet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
        stride: of the trunk's last map, 8, 16 or 32.
        multi_grid: what each block of the last stage multiplies its dilation by; empty for none.
        channels: of the map that is rebuilt, and of its bases.
        bases: their number.
        steps: of expectation and maximisation.
        momentum: share of the former bases that a training step keeps for the next image to begin from.
        norm: after each convolution but that before the bases.
        dropout: share of channels dropped before the scores, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Annotated[float, Field(gt=0)] = 1.0
    deep_stem: bool = False
    stride: Literal[8, 16, 32] = 8
    multi_grid: tuple[Positive, ...] = (1, 2, 4)
    channels: Positive = 512
    bases: Positive = 64
    steps: Positive = 3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    norm: NormName = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux: bool = False


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "tiny": Config(depth=10, width=1 / 16, channels=8, bases=4),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet; between two 3x3 units, attention to the bases; scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = resnet(
        dims,
        in_channels,
        config.depth,
        width=config.width,
        norm=norm,
        output_stride=config.stride,
        multi_grid=config.multi_grid,
        deep_stem=config.deep_stem,
    )
    *_, side, last = trunk.channels
    head = nn.Sequential(
        Pick(-1),
        unit(dims, last, width, norm=norm),
        EMAttention(dims, width, config.bases, config.steps, config.momentum, norm=norm),
        unit(dims, width, width // 2, norm=norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width // 2, out_channels, 1),
    )
    auxiliary = [fcn_head(dims, -2, side, out_channels, norm=norm)] if config.aux else []
    return _blocks.initialise(Segmenter(trunk, head, auxiliary))
