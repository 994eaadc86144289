"""DeepUNet: many steps down at one small width, and in each block a sum with what the block was given.

Family: u-shape
Paper: Li, Liu, Yang, Sun, Hu, Zhang, Li 2018, DeepUNet: a deep fully convolutional network for pixel-level sea-land
    segmentation, arXiv:1709.00201

Presets:
    paper: blocks of 64 and 32 channels, six steps down and up, with normalisations and rectifiers where the authors' code has them.
    tiny: the same topology with few channels and steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, Output, PerAxis, Positive
from medseg.models._segmenter import with_auxiliary
from medseg.models._ushape import convs
from medseg.settings import Settings

COARSER = 3  # levels that are scored beside the finest: the authors train with four


class Config(Settings):
    """Options of a DeepUNet.

    Args:
        width: channels between blocks, at every level.
        inner: channels within a block.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation after each convolution.
        aux: in training also the scores of the next coarser levels, three at most.
    """

    width: Positive = 32
    inner: Positive = 64
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2, 2, 2)
    kernel: Kernel = 3
    norm: NormName = "batch"
    aux: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= len(self.strides) <= 8:
            raise ValueError(f"expected 1 to 8 steps in strides, got {self.strides}")
        return self


PRESETS = {"paper": Config(), "tiny": Config(width=4, inner=6, strides=(2, 2))}


class DeepUNet(nn.Module):
    """The network of given parts: those on the way down begin with the finest, those on the way up with the coarsest.

    Args:
        first: from the image to the finest map, which is not rectified yet.
        pools: steps down.
        downs: of each pooled map, what is added to it.
        doubles: steps up.
        ups: of each skip and doubled map, what is added to the latter.
        scores: of the finest map, then of coarser ones.
    """

    def __init__(
        self,
        first: nn.Module,
        pools: Sequence[nn.Module],
        downs: Sequence[nn.Module],
        doubles: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        scores: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.first, self.scores, self.auxiliary = first, scores[0], nn.ModuleList(scores[1:])
        self.pools, self.downs = nn.ModuleList(pools), nn.ModuleList(downs)
        self.doubles, self.ups = nn.ModuleList(doubles), nn.ModuleList(ups)

    def forward(self, x: Tensor) -> Tensor | Output:
        sums = [self.first(x)]
        for pool, block in zip(self.pools, self.downs, strict=True):
            x = pool(sums[-1].relu())
            sums.append(x + block(x))  # the plus connection
        x = sums.pop().relu()
        maps: list[Tensor] = []
        for double, block in zip(self.doubles, self.ups, strict=True):
            skip = sums.pop()
            x = _blocks.crop_like(double(x), skip)
            x = (x + block(torch.cat((skip, x), dim=1))).relu()  # the U connection, and plus
            maps.insert(0, x)
        return with_auxiliary(self.scores(x), self.auxiliary, maps[1 : 1 + len(self.auxiliary)])


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A DeepUNet of the given widths and steps."""
    dims, width, strides = spatial_dims, config.width, config.strides

    def row(inputs: int, *outputs: int) -> nn.Module:
        """Convolutions of which the last is not rectified."""
        return convs(dims, inputs, *outputs, kernel=config.kernel, norm=config.norm)[:-1]

    first = row(in_channels, width, config.inner, width)
    downs, ups = ([row(n * width, config.inner, width) for _ in strides] for n in (1, 2))
    pools = [_blocks.max_pool(dims, stride) for stride in strides]
    doubles = [_blocks.upsample(dims, stride) for stride in reversed(strides)]
    coarser = min(COARSER, len(strides) - 1) if config.aux else 0
    scores = [_blocks.conv(dims, width, out_channels, 1) for _ in range(1 + coarser)]
    return _blocks.initialise(DeepUNet(first, pools, downs, doubles, ups, scores))
