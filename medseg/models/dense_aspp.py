"""DenseASPP: dilated convolutions in a row, of which each sees all before it, on a dilated DenseNet.

Family: dilated
Paper: Yang, Yu, Zhang, Li, Yang 2018, DenseASPP for semantic segmentation in street scenes, CVPR 2018

Presets:
    densenet161: 35,392,227 parameters for 3 channels and 19 classes in 2D, where the paper says 35.7 million.
    densenet201: a deep and narrow trunk, with the authors' channels for it.
    densenet169: a smaller one.
    densenet121: the smallest of theirs.
    tiny: one layer a block, narrow.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import DenseNetDepth, OutputStride, densenet
from medseg.models._blocks import NormName, Positive, Share, Width
from medseg.models._context import DenseASPP
from medseg.models._convs import unit
from medseg.models._segmenter import Pick, Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of a DenseASPP.

    Args:
        depth: layers of the DenseNet: 13 is smaller than any of that paper.
        width: of the trunk, 1 for the published one.
        stride: of the trunk's last map, 8, 16 or 32.
        channels: of the 1x1 convolution before each dilated one.
        growth: channels that each dilated convolution adds.
        rates: their dilations.
        norm: after each convolution of the trunk, and before those that follow.
        dropout: share of whole channels dropped after each dilated convolution and before the scores, 0 to 1.
    """

    depth: DenseNetDepth = 161
    width: Width = 1.0
    stride: OutputStride = 8
    channels: Positive = 512
    growth: Positive = 128
    rates: tuple[Positive, ...] = (3, 6, 12, 18, 24)
    norm: NormName = "batch"
    dropout: Share = 0.1


PRESETS = {
    "densenet161": Config(),
    "densenet201": Config(depth=201, channels=480, growth=240),
    "densenet169": Config(depth=169, channels=336, growth=168),
    "densenet121": Config(depth=121, channels=128, growth=64),
    "tiny": Config(depth=13, width=1 / 8, channels=8, growth=4, rates=(1, 2, 3)),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated DenseNet, half of its channels, dense ASPP, scores."""
    dims, norm, dropout = spatial_dims, config.norm, config.dropout
    trunk = densenet(dims, in_channels, config.depth, width=config.width, norm=norm, output_stride=config.stride)
    inputs, half = trunk.channels[-1], trunk.channels[-1] // 2
    context = DenseASPP(dims, half, config.channels, config.growth, config.rates, dropout=dropout, norm=norm)
    head = nn.Sequential(
        Pick(-1),
        unit(dims, inputs, half, 1, norm=norm),
        context,
        _blocks.dropout(dims, dropout),
        _blocks.conv(dims, context.outputs, out_channels, 1),
    )
    return _blocks.initialise(Segmenter(trunk, head))
