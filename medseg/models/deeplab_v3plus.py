"""DeepLab v3+: the context of DeepLab v3, taken to stride 4 and refined there beside an early map.

Family: dilated
Paper: Chen, Zhu, Papandreou, Schroff, Adam 2018, Encoder-decoder with atrous separable convolution for semantic image segmentation,
    arXiv:1802.02611

Presets:
    resnet50: 40,352,181 parameters for 3 channels and 21 classes in 2D.
    resnet101: the deeper trunk.
    xception65: Xception-65 and separable convolutions throughout, the paper's best: 41,055,413 parameters.
    mobilenet_v2: a small trunk: 5,816,053 parameters.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, Trunk, mobilenet_v2, resnet, xception
from medseg.models._blocks import NormName, Positive, Share, Width
from medseg.models._context import ASPP
from medseg.models._convs import separable, unit
from medseg.models._resizing import resize_like
from medseg.models._segmenter import segmenter
from medseg.settings import Settings

FINE = 1  # which of the trunk's maps the decoder sees: that of stride 4


class Config(Settings):
    """Options of a DeepLab v3+.

    Args:
        trunk: what makes the maps.
        width: of the trunk, 1 for the published one.
        stride: of the trunk's last map, 8, 16 or 32.
        channels: of each branch of the context, and of the decoder.
        fine: channels to which the map of stride 4 is taken.
        rates: dilations of the 3x3 branches, meant for the stride: (6, 12, 18) at 16, the double at 8.
        split: 3x3 convolutions of context and decoder are separable.
        norm: after each convolution.
        dropout: share of values dropped after the branches are joined, 0 to 1.
        aux: in training also the scores of the trunk's last map but one.
    """

    trunk: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "xception65", "mobilenet_v2"] = (
        "resnet50"
    )
    width: Width = 1.0
    stride: OutputStride = 16
    channels: Positive = 256
    fine: Positive = 48
    rates: tuple[Positive, ...] = (6, 12, 18)
    split: bool = False
    norm: NormName = "batch"
    dropout: Share = 0.5
    aux: bool = False


PRESETS = {
    "resnet50": Config(),
    "resnet101": Config(trunk="resnet101"),
    "xception65": Config(trunk="xception65", split=True),
    "mobilenet_v2": Config(trunk="mobilenet_v2"),
    "tiny": Config(trunk="resnet10", width=1 / 16, channels=8, fine=4, rates=(1, 2), dropout=0.1),
}


class Decoder(nn.Module):
    """The context of the last map, resized to an early one and joined with it (figure 2)."""

    def __init__(self, context: nn.Module, early: nn.Module, refine: nn.Module) -> None:
        super().__init__()
        self.context, self.early, self.refine = context, early, refine

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        early = self.early(maps[FINE])
        return self.refine(torch.cat((early, resize_like(self.context(maps[-1]), early)), dim=1))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated trunk, ASPP, and a decoder of two 3x3 units."""
    dims, norm, width, fine = spatial_dims, config.norm, config.channels, config.fine
    trunk = _trunk(config, dims, in_channels)
    kind = separable if config.split else unit
    head = Decoder(
        ASPP(dims, trunk.channels[-1], width, config.rates, split=config.split, dropout=config.dropout, norm=norm),
        unit(dims, trunk.channels[FINE], fine, 1, norm=norm),
        nn.Sequential(
            kind(dims, width + fine, width, norm=norm),
            kind(dims, width, width, norm=norm),
            _blocks.conv(dims, width, out_channels, 1),
        ),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)


def _trunk(config: Config, dims: int, inputs: int) -> Trunk:
    if config.trunk == "xception65":
        return xception(dims, inputs, width=config.width, norm=config.norm, output_stride=config.stride)
    if config.trunk == "mobilenet_v2":
        return mobilenet_v2(dims, inputs, width=config.width, norm=config.norm, output_stride=config.stride)
    depth = int(config.trunk.removeprefix("resnet"))
    return resnet(dims, inputs, depth, width=config.width, norm=config.norm, output_stride=config.stride)
