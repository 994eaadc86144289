"""DeepUNet: seven steps down at one small width, and in each block a sum with what the block was given.

Family: u-shape
Paper: Li, Liu, Yang, Sun, Hu, Zhang, Li 2018, DeepUNet: a deep fully convolutional network for pixel-level sea-land
    segmentation, arXiv:1709.00201

Presets:
    paper: figures 2 to 4: blocks of 64 and 32 channels, seven steps down and up.
    tiny: the same topology with few channels and steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive
from medseg.settings import Settings


class Config(Settings):
    """Options of a DeepUNet.

    Args:
        width: channels between blocks, at every level.
        inner: channels within a block.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation before each rectifier.
    """

    width: Positive = 32
    inner: Positive = 64
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2, 2, 2, 2)
    kernel: Kernel = 3
    norm: NormName = "batch"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= len(self.strides) <= 8:
            raise ValueError(f"expected 1 to 8 steps in strides, got {self.strides}")
        return self


PRESETS = {"paper": Config(), "tiny": Config(width=4, inner=6, strides=(2, 2))}


class DeepUNet(nn.Module):
    """The network of given parts: blocks down and up, of which those of one level stand at the same place of their lists."""

    def __init__(
        self,
        stem: nn.Module,
        downs: Sequence[nn.Module],
        pools: Sequence[nn.Module],
        doubles: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.stem, self.head = stem, head
        self.downs, self.pools = nn.ModuleList(downs), nn.ModuleList(pools)
        self.doubles, self.ups = nn.ModuleList(doubles), nn.ModuleList(ups)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), []
        for block, pool in zip(self.downs, self.pools, strict=True):
            skips.append(x + block(x))  # the plus connection
            x = pool(skips[-1])
        for double, block, skip in zip(reversed(self.doubles), reversed(self.ups), reversed(skips), strict=True):
            x = _blocks.crop_like(double(x), skip)
            x = x + block(torch.cat((skip, x), dim=1))  # the U connection, and plus
        return self.head(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A DeepUNet of the given widths and steps."""
    dims, width = spatial_dims, config.width

    def block(inputs: int) -> nn.Module:
        row = nn.Sequential()
        for a, b in ((inputs, config.inner), (config.inner, width)):
            row.append(_blocks.norm(config.norm, a)).append(nn.ReLU())
            row.append(_blocks.conv(dims, a, b, config.kernel))
        return row

    stem = _blocks.conv(dims, in_channels, width, config.kernel)
    downs, ups = ([block(n * width) for _ in config.strides] for n in (1, 2))
    pools = [_blocks.max_pool(dims, stride) for stride in config.strides]
    doubles = [_blocks.upsample(dims, stride) for stride in config.strides]
    end = (_blocks.norm(config.norm, width), nn.ReLU(), _blocks.conv(dims, width, out_channels, 1))
    return _blocks.initialise(DeepUNet(stem, downs, pools, doubles, ups, nn.Sequential(*end)))
