"""CCNet: attention along the lines through each voxel, repeated until every voxel has seen all others.

Family: attention
Paper: Huang, Wang, Wei, Huang, Shi, Liu, Huang 2019, CCNet: Criss-cross attention for semantic segmentation, arXiv:1811.11721

Presets:
    resnet50: ResNet-50 of stride 8, the same attention twice in 2D and three times in 3D: 47,442,132 parameters for 3 channels and
        19 classes in 2D.
    resnet101: the deeper trunk: 66,434,260, the paper's 66.4 million.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import CrissCross
from medseg.models._blocks import NormName, Positive, Times
from medseg.models._convs import unit
from medseg.models._dilated import Options, dilated_resnet
from medseg.models._segmenter import Pick, segmenter


class Config(Options):
    """Options of a CCNet, besides those of `_dilated.Options`.

    Args:
        channels: of the attention and of what follows; queries and keys have an eighth.
        recurrence: times that the attention is applied; none for one an axis, which reaches every voxel.
        norm: after each 3x3 convolution.
    """

    channels: Positive = 512
    recurrence: Times | None = None


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 16, channels=8)}


class Recurrent(nn.Module):
    """Fewer channels, one attention several times, and the map itself beside the result (figure 2)."""

    def __init__(self, dims: int, inputs: int, channels: int, times: int, norm: NormName) -> None:
        super().__init__()
        self.times = times
        self.first = unit(dims, inputs, channels, norm=norm)
        self.attention = CrissCross(dims, channels, max(channels // 8, 2))
        self.last = unit(dims, channels, channels, norm=norm)
        self.join = unit(dims, inputs + channels, channels, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.first(x)
        for _ in range(self.times):
            seen = self.attention(seen)
        return self.join(torch.cat((x, self.last(seen)), dim=1))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, recurrent criss-cross attention, scores."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    head = nn.Sequential(
        Pick(-1),
        Recurrent(dims, last, width, config.recurrence or dims, norm),
        _blocks.dropout(dims, config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
