"""Reverse attention: a second branch learns what a voxel is not, and is heard where the first is unsure.

Family: attention
Paper: Huang, Xia, Wu, Li, Wang, Song, Kuo 2017, Semantic segmentation with reverse attention, arXiv:1707.06426

Presets:
    resnet101: ResNet-101 of stride 8, 3x3 scores of rate 12 in both branches: 43,274,346 parameters for 3 channels and 21 classes in
        2D.
    resnet50: the smaller trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import OutputStride, ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Output, Positive, Width
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a reverse attention network.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        stride: of the trunk's last map, 8, 16 or 32.
        rate: dilation of the scores' 3x3 convolutions.
        norm: after each convolution of the trunk.
        aux: in training also the scores of each branch alone, the second's reversed.
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    stride: OutputStride = 8
    rate: Positive = 12
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {"resnet101": Config(), "resnet50": Config(depth=50), "tiny": Config(depth=10, width=1 / 16, rate=2)}


class ReverseAttention(nn.Module):
    """The trunk and the scores of the two branches (figure 3)."""

    def __init__(self, trunk: Trunk, direct: nn.Module, reverse: nn.Module, *, aux: bool) -> None:
        super().__init__()
        self.trunk, self.direct, self.reverse, self.aux = trunk, direct, reverse, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        last = self.trunk(x)[-1]
        direct, reverse = self.direct(last), self.reverse(last)
        doubt = (-direct).sigmoid()  # equation 1: great where the first branch sees no sign of the class
        logits = resize_like(direct - doubt * reverse, x)
        return Output(logits, (direct, -reverse)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet and two convolutions that make scores of its last map."""
    dims, stride = spatial_dims, config.stride
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=config.norm, output_stride=stride)
    direct, reverse = (_blocks.conv(dims, trunk.channels[-1], out_channels, dilation=config.rate) for _ in range(2))
    return _blocks.initialise(ReverseAttention(trunk, direct, reverse, aux=config.aux))
