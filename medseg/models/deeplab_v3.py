"""DeepLab v3: dilations side by side, with the image's mean, on a dilated trunk.

Family: dilated
Paper: Chen, Papandreou, Schroff, Adam 2017, Rethinking atrous convolution for semantic image segmentation, arXiv:1706.05587

Presets:
    resnet50: ResNet-50 of stride 8: 39,638,869 parameters for 3 channels and 21 classes in 2D, with the auxiliary head 42,004,074.
    resnet101: the deeper trunk.
    paper: ResNet-101 of stride 16, whose last stage has the multi-grid 1, 2, 4 (section 3.2).
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import Positive, Share
from medseg.models._context import ASPP
from medseg.models._convs import unit
from medseg.models._dilated import Options, dilated_resnet
from medseg.models._segmenter import Pick, segmenter


class Config(Options):
    """Options of a DeepLab v3, besides those of `_dilated.Options`.

    Args:
        multi_grid: what each block of the last stage multiplies its dilation by; empty for none.
        channels: of each branch, and of the unit before the scores.
        rates: dilations of the 3x3 branches, meant for the stride: (6, 12, 18) at 16, the double at 8.
        dropout: share of values dropped after the branches are joined, 0 to 1.
    """

    multi_grid: tuple[Positive, ...] = ()
    channels: Positive = 256
    rates: tuple[Positive, ...] = (12, 24, 36)
    dropout: Share = 0.5


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "paper": Config(depth=101, stride=16, multi_grid=(1, 2, 4), rates=(6, 12, 18)),
    "tiny": Config(depth=10, width=1 / 16, channels=8, rates=(2, 4), dropout=0.1),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, ASPP, one 3x3 unit, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config, config.multi_grid)
    last = trunk.channels[-1]
    head = nn.Sequential(
        Pick(-1),
        ASPP(dims, last, width, config.rates, dropout=config.dropout, norm=norm),
        unit(dims, width, width, norm=norm),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
