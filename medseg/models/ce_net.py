"""CE-Net: a U over a ResNet, at whose bottom stand convolutions of several reaches and poolings of several sizes.

Family: u-shape
Paper: Gu, Cheng, Fu, Zhou, Hao, Zhao, Zhang, Gao, Liu 2019, CE-Net: context encoder network for 2D medical image segmentation,
    arXiv:1903.02740

Presets:
    resnet34: figure 2: 29,003,093 parameters for 3 channels and 1 class in 2D. Branches of the dense atrous block share their
        convolutions, as in the authors' code.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk, resnet, scaled
from medseg.models._blocks import NormName, Positive, Width
from medseg.models._convs import finished
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a CE-Net.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        pools: sizes of the blocks whose maxima are taken at the bottom.
        norm: normalisation after each convolution of trunk and decoder.
    """

    depth: Literal[10, 18, 34] = 34
    width: Width = 1.0
    pools: tuple[Positive, ...] = (2, 3, 5, 6)
    norm: NormName = "batch"


PRESETS = {"resnet34": Config(), "tiny": Config(depth=10, width=1 / 16, pools=(2, 3))}


class DenseAtrous(nn.Module):
    """x and four branches of it, which see 3, 7, 9 and 19 voxels along an axis (figure 3)."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.spread1, self.spread3, self.spread5 = (
            _blocks.conv(dims, channels, channels, dilation=rate) for rate in (1, 3, 5)
        )
        self.point = _blocks.conv(dims, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.spread1(x), self.spread3(x)
        both = self.spread3(near)
        branches = (near, self.point(far), self.point(both), self.point(self.spread5(both)))
        return x + sum(branch.relu() for branch in branches)


class MultiPool(nn.Module):
    """A map beside one channel for each size of pooling (residual multi-kernel pooling, figure 4); the 1x1 convolution is shared."""

    def __init__(self, dims: int, channels: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.pools = nn.ModuleList(_blocks.max_pool(dims, size) for size in sizes)
        self.point = _blocks.conv(dims, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(resize_like(self.point(pool(x)), x) for pool in self.pools), x], dim=1)


class CENet(nn.Module):
    """The network of given parts; the decoder begins with the coarsest step, and adds to the trunk's maps but the stem's."""

    def __init__(self, trunk: Trunk, bottom: nn.Module, decoder: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.bottom, self.decoder, self.head = trunk, bottom, nn.ModuleList(decoder), head

    def forward(self, image: Tensor) -> Tensor:
        stem, *maps = self.trunk(image)
        x = self.bottom(maps.pop())
        for step, skip in zip(self.decoder, reversed(maps), strict=False):
            x = _blocks.crop_like(step(x), skip) + skip
        x = _blocks.crop_like(self.decoder[-1](x), stem)
        return _blocks.crop_like(self.head(x), image)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A trunk, the two blocks at its bottom, and the way up."""
    dims, norm = spatial_dims, config.norm
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm)
    _, first, *_, last = trunk.channels
    outputs = (*trunk.channels[-2:0:-1], first)
    widths = (last + len(config.pools), *outputs)
    decoder = [_step_up(dims, a, b, norm) for a, b in zip(widths, outputs, strict=False)]
    half = max(6, scaled(32, config.width))  # with fewer, all rectifiers of a voxel may be shut
    layer = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    head = nn.Sequential(
        layer(first, half, 4, 2, 1),
        nn.ReLU(),
        _blocks.conv(dims, half, half),
        nn.ReLU(),
        _blocks.conv(dims, half, out_channels),
    )
    bottom = nn.Sequential(DenseAtrous(dims, last), MultiPool(dims, last, config.pools))
    return _blocks.initialise(CENet(trunk, bottom, decoder, head))


def _step_up(dims: int, inputs: int, outputs: int, norm: NormName) -> nn.Module:
    """1x1 to a quarter of the channels, a transposed convolution, 1x1 (figure 2, as LinkNet's); all have a bias."""
    quarter = max(4, inputs // 4)
    return nn.Sequential(
        finished(_blocks.conv(dims, inputs, quarter, 1), quarter, norm),
        finished(_blocks.transposed(dims, quarter, quarter, 2, 3), quarter, norm),
        finished(_blocks.conv(dims, quarter, outputs, 1), outputs, norm),
    )
