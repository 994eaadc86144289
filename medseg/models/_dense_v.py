"""The way down of a dense V-network: stacks of features at three resolutions, each beside the image at the finest of them."""

from __future__ import annotations

from functools import partial
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive, Share
from medseg.models._convs import DenseLayer, unit
from medseg.settings import Settings


class DenseV(Settings):
    """Options of the way down.

    Args:
        first: channels of the first convolution, and of each step down.
        growth: channels that each layer adds to its stack, finest stack first.
        layers: layers of each stack.
        sides: channels in which each stack is seen from the way up.
        strides: by how much the first convolution and each later step coarsens, one number or one an axis.
        kernel: odd size of convolutions, one number or one an axis; the first one reaches a voxel further.
        norm: normalisation after each convolution.
        dropout: share of a layer's channels that a whole batch goes without, 0 to 1 (batch-wise spatial dropout).
    """

    first: Positive = 24
    growth: tuple[Positive, ...] = (4, 8, 16)
    layers: tuple[Positive, ...] = (5, 10, 10)
    sides: tuple[Positive, ...] = (12, 24, 24)
    strides: tuple[PerAxis, ...] = (2, 2, 2)
    kernel: Kernel = 3
    norm: NormName = "batch"
    dropout: Share = 0.5

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.growth), layers=self.layers, sides=self.sides, strides=self.strides)
        return self


class _BatchwiseDropout(nn.modules.dropout._DropoutNd):
    """The same channels for a whole batch, so that a channel left out need not be computed."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[1], device=x.device) >= self.p
        return x * (kept / (1 - self.p)).to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))


class Encoder(nn.Module):
    """From an image to its coarsened self and the stacks, finest first, each in the channels of its side."""

    def __init__(self, config: DenseV, dims: int, in_channels: int) -> None:
        super().__init__()
        conv, kernel = partial(unit, dims, norm=config.norm), _blocks.ntuple(config.kernel, dims)

        def stack(inputs: int, growth: int, layers: int) -> nn.Module:
            rows = [conv(inputs + n * growth, growth, kernel) for n in range(layers)]
            for row in rows[:-1]:
                row.append(_BatchwiseDropout(config.dropout))
            return nn.Sequential(*map(DenseLayer, rows))

        further = tuple(k + 2 if k > 1 else 1 for k in kernel)
        self.shrink = nn.Sequential(_blocks.mean_pool(dims, config.strides[0]), _blocks.norm(config.norm, in_channels))
        self.stem = conv(in_channels, config.first, further, config.strides[0])
        inputs, stacks, sides, downs = in_channels + config.first, [], [], []
        for level, (growth, layers, side) in enumerate(zip(config.growth, config.layers, config.sides, strict=True)):
            if level:
                downs.append(conv(inputs, config.first, kernel, config.strides[level]))
                inputs = config.first
            stacks.append(stack(inputs, growth, layers))
            inputs += growth * layers
            sides.append(conv(inputs, side, kernel))
        self.stacks, self.sides, self.downs = (nn.ModuleList(parts) for parts in (stacks, sides, downs))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        small, sides = self.shrink(x), []
        x = torch.cat((small, self.stem(x)), dim=1)
        for level, (stack, side) in enumerate(zip(self.stacks, self.sides, strict=True)):
            x = stack(self.downs[level - 1](x) if level else x)
            sides.append(side(x))
        return small, sides
