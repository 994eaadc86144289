"""DeepLab's VGG, on which several networks stand: its options, and the parts that they describe."""

from __future__ import annotations

from torch import nn

from medseg.models._backbones import Trunk, VGGDepth, vgg
from medseg.models._backbones.vgg import still_pools, vgg_hidden
from medseg.models._blocks import Positive, Share, Width
from medseg.settings import Settings

STRIDE = 8


class Options(Settings):
    """Options of a network on DeepLab's VGG.

    Args:
        depth: of the VGG, its three fully connected layers included: 8 is smaller than any of that paper.
        width: of the trunk, 1 for 64 to 512 channels.
        hidden: channels of the two convolutions in place of fully connected layers.
        rate: dilation of the first of these.
        dropout: share of values dropped after each of them, 0 to 1.
    """

    depth: VGGDepth = 16
    width: Width = 1.0
    hidden: Positive = 1024
    rate: Positive = 12
    dropout: Share = 0.5


def large_fov(dims: int, inputs: int, config: Options, stride: int = STRIDE) -> tuple[Trunk, nn.Sequential]:
    """The trunk, and what looks at its last map with a large field of view (Chen et al. 2015, arXiv:1412.7062, 3.2)."""
    trunk = vgg(dims, inputs, config.depth, width=config.width, output_stride=stride, pool=3)
    view = vgg_hidden(dims, trunk.channels[-1], config.hidden, 3, dilation=config.rate, dropout=config.dropout)
    return trunk, nn.Sequential(still_pools(dims), view)
