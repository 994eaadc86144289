"""DeepLab v3: dilations side by side, with the image's mean, on a dilated trunk.

Family: dilated
Paper: Chen, Papandreou, Schroff, Adam 2017, Rethinking atrous convolution for semantic image segmentation, arXiv:1706.05587

Presets:
    resnet50: ResNet-50 of stride 8, with a 3x3 unit before the scores, as most code has it: 39,638,869 parameters for 3 channels and
        21 classes in 2D, with the auxiliary head 42,004,074.
    resnet101: the deeper trunk: with the auxiliary head 60,996,202 parameters.
    mobilenet_v3: MobileNetV3-Large of stride 16: 11,025,477 parameters, with the auxiliary head 11,029,328.
    paper: ResNet-101 of stride 16, whose last stage has the multi-grid 1, 2, 4, and scores of the joined branches without a unit
        between (section 3.3).
    cascade: the paper's other network: three more stages of ever larger dilations in place of the branches, multi-grid 1, 2, 1
        (section 3.2).
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from medseg.models import _blocks
from medseg.models._backbones import mobilenet_v3
from medseg.models._blocks import Positive, Share
from medseg.models._context import ASPP
from medseg.models._convs import unit
from medseg.models._dilated import Options, dilated_resnet
from medseg.models._segmenter import Pick, segmenter


class Config(Options):
    """Options of a DeepLab v3, besides those of `_dilated.Options`.

    Args:
        trunk: what makes the maps: a ResNet of the depth, or MobileNetV3-Large, which has one depth, no multi-grid and no cascade.
        multi_grid: what each block of the last stages multiplies its dilation by, in turn; empty for the stage's own.
        cascade: stages of the ResNet after its last one, in place of the branches; 0 for branches.
        channels: of each branch, and of the unit before the scores.
        rates: dilations of the 3x3 branches, meant for the stride: (6, 12, 18) at 16, the double at 8.
        refine: with a 3x3 unit before the scores, which the paper has not.
        dropout: share of values dropped after the branches are joined, 0 to 1.
        aux: in training also the scores of an earlier map: the last but one of a ResNet, that of stride 8 of MobileNetV3.
    """

    trunk: Literal["resnet", "mobilenet_v3"] = "resnet"
    multi_grid: tuple[Positive, ...] = ()
    cascade: Annotated[int, Field(ge=0)] = 0
    channels: Positive = 256
    rates: tuple[Positive, ...] = (12, 24, 36)
    refine: bool = True
    dropout: Share = 0.5


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(depth=101),
    "mobilenet_v3": Config(trunk="mobilenet_v3", stride=16),
    "paper": Config(depth=101, stride=16, multi_grid=(1, 2, 4), rates=(6, 12, 18), refine=False),
    "cascade": Config(depth=101, stride=16, multi_grid=(1, 2, 1), cascade=3, refine=False),
    "tiny": Config(depth=10, width=1 / 16, channels=8, rates=(2, 4), dropout=0.1),
}


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated trunk, ASPP or further stages, one 3x3 unit or none, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    if config.trunk == "resnet":
        trunk, early = dilated_resnet(dims, in_channels, config, config.multi_grid, further=config.cascade), -2
    else:
        trunk, early = mobilenet_v3(dims, in_channels, width=config.width, norm=norm, output_stride=config.stride), -3
    head, channels = nn.Sequential(Pick(-1)), trunk.channels[-1]
    if not config.cascade:
        head.append(ASPP(dims, channels, width, config.rates, dropout=config.dropout, norm=norm))
        channels = width
    if config.refine:
        head.append(unit(dims, channels, width, norm=norm))
        channels = width
    head.append(_blocks.conv(dims, channels, out_channels, 1))
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux, early=early)
