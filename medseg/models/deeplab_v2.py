"""DeepLab v2: scores of several dilations side by side, summed, on a trunk of stride 8.

Family: dilated
Paper: Chen, Papandreou, Kokkinos, Murphy, Yuille 2018, DeepLab: Semantic image segmentation with deep convolutional nets, atrous
    convolution, and fully connected CRFs, arXiv:1606.00915

Presets:
    resnet101: 44,048,532 parameters for 3 channels and 21 classes in 2D. The paper's dense CRF is a step after any network.
    vgg16: each dilation has its own convolutions in place of fully connected layers (figure 7b): 37,877,652 parameters.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import resnet, vgg
from medseg.models._backbones.vgg import still_pools, vgg_hidden
from medseg.models._blocks import NormName, Positive, Share, Width
from medseg.models._context import SumASPP, Summed
from medseg.models._segmenter import Pick, Segmenter
from medseg.settings import Settings


class Config(Settings):
    """Options of a DeepLab v2.

    Args:
        trunk: what makes the maps.
        width: of the trunk, 1 for the paper's.
        stride: of the trunk's last map; 16 is the coarsest of a VGG.
        rates: dilations of the branches.
        hidden: of a VGG, channels of the convolutions in place of fully connected layers; a ResNet has none.
        norm: of a ResNet; a VGG has none.
        dropout: of a VGG, share of values dropped after each of the hidden convolutions, 0 to 1.
    """

    trunk: Literal["resnet10", "resnet50", "resnet101", "vgg16"] = "resnet101"
    width: Width = 1.0
    stride: Literal[8, 16] = 8
    rates: tuple[Positive, ...] = (6, 12, 18, 24)
    hidden: Positive = 1024
    norm: NormName = "batch"
    dropout: Share = 0.5


PRESETS = {
    "resnet101": Config(),
    "vgg16": Config(trunk="vgg16"),
    "tiny": Config(trunk="resnet10", width=1 / 16, rates=(1, 2)),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated trunk and its summed scores."""
    dims, width, rates = spatial_dims, config.width, config.rates
    if config.trunk == "vgg16":
        trunk = vgg(dims, in_channels, width=width, output_stride=config.stride, pool=3)
        branches = []
        for rate in rates:
            hidden = vgg_hidden(dims, trunk.channels[-1], config.hidden, 3, dilation=rate, dropout=config.dropout)
            branches.append(hidden.append(_blocks.conv(dims, config.hidden, out_channels, 1)))
        head = nn.Sequential(Pick(-1), still_pools(dims), Summed(branches))
    else:
        depth = int(config.trunk.removeprefix("resnet"))
        trunk = resnet(dims, in_channels, depth, width=width, norm=config.norm, output_stride=config.stride)
        head = nn.Sequential(Pick(-1), SumASPP(dims, trunk.channels[-1], out_channels, rates))
    return _blocks.initialise(Segmenter(trunk, head))
