"""PSPNet: the last map of a dilated trunk beside its means over grids of four sizes.

Family: dilated
Paper: Zhao, Shi, Qi, Wang, Jia 2017, Pyramid scene parsing network, arXiv:1612.01105

Presets:
    resnet50: ResNet-50 of stride 8 with its plain 7x7 stem: 46,592,597 parameters for 3 channels and 21 classes in 2D, with the
        auxiliary head 48,957,802.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from torch import nn

from medseg.models import _blocks
from medseg.models._blocks import Positive
from medseg.models._context import PyramidPooling
from medseg.models._convs import unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._segmenter import Pick, segmenter


class Config(StemOptions):
    """Options of a PSPNet, besides those of `_dilated.StemOptions`.

    Args:
        bins: elements an axis of the grids over which means are taken.
        dropout: share of values dropped before the scores, 0 to 1.
    """

    bins: tuple[Positive, ...] = (1, 2, 3, 6)


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 16)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, pyramid pooling, one 3x3 unit, scores."""
    dims, norm = spatial_dims, config.norm
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    pyramid = PyramidPooling(dims, last, config.bins, norm=norm)
    head = nn.Sequential(
        Pick(-1),
        pyramid,
        unit(dims, pyramid.outputs, last // 4, norm=norm),
        nn.Dropout(config.dropout),
        _blocks.conv(dims, last // 4, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
