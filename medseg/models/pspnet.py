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

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import resnet
from medseg.models._blocks import NormName, Positive
from medseg.models._context import PyramidPooling
from medseg.models._convs import unit
from medseg.models._segmenter import Pick, Segmenter, fcn_head
from medseg.settings import Settings


class Config(Settings):
    """Options of a PSPNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem; the head follows.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
        stride: of the trunk's last map, 8, 16 or 32.
        bins: elements an axis of the grids over which means are taken.
        norm: after each convolution.
        dropout: share of values dropped before the scores, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Annotated[float, Field(gt=0)] = 1.0
    deep_stem: bool = False
    stride: Literal[8, 16, 32] = 8
    bins: tuple[Positive, ...] = (1, 2, 3, 6)
    norm: NormName = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    aux: bool = False


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 16)}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, pyramid pooling, one 3x3 unit, scores."""
    dims, norm = spatial_dims, config.norm
    trunk = resnet(
        dims,
        in_channels,
        config.depth,
        width=config.width,
        norm=norm,
        output_stride=config.stride,
        deep_stem=config.deep_stem,
    )
    *_, side, last = trunk.channels
    pyramid = PyramidPooling(dims, last, config.bins, norm=norm)
    head = nn.Sequential(
        Pick(-1),
        pyramid,
        unit(dims, pyramid.outputs, last // 4, norm=norm),
        nn.Dropout(config.dropout),
        _blocks.conv(dims, last // 4, out_channels, 1),
    )
    auxiliary = [fcn_head(dims, -2, side, out_channels, norm=norm)] if config.aux else []
    return _blocks.initialise(Segmenter(trunk, head, auxiliary))
