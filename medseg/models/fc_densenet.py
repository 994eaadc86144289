"""FC-DenseNet, the "tiramisu": dense blocks in the shape of a U, of which only the new maps travel upward.

Family: dense
Paper: Jegou, Drozdzal, Vazquez, Romero, Bengio 2017, The one hundred layers tiramisu: fully convolutional DenseNets for semantic
    segmentation, arXiv:1611.09326

Presets: a variant's number is its count of convolutions (of dense layers, one a step down, one a step up, the first, the last).
    103: table 2 of the paper: 9,322,091 parameters for 3 channels and 11
        classes in 2D (9.4 M in the paper, which also counts the running figures of batch normalisation).
    67: the same, 5 layers a block: 3.5 M in the paper.
    56: the same, 4 layers a block and growth 12: 1.4 M, where the paper says 1.5 M.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, PerAxis, Positive, Share, Size, Times
from medseg.settings import Settings


class Config(Settings):
    """Options of an FC-DenseNet. The way up mirrors the way down.

    Args:
        first: channels of the first convolution.
        growth: new maps of each dense layer.
        blocks: layers of the dense blocks, from the finest to the bottleneck.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation before each convolution.
        dropout: share of values dropped after each convolution but the first and the last, 0 to 1.
    """

    first: Positive = 48
    growth: Positive = 16
    blocks: tuple[Times, ...] = (4, 5, 7, 10, 12, 15)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2, 2)
    kernel: Kernel = 3
    norm: Literal["instance", "batch", "group"] = "batch"
    dropout: Share = 0.2

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.blocks) - 1, strides=self.strides)
        return self


PRESETS = {
    "103": Config(),
    "67": Config(blocks=(5,) * 6),
    "56": Config(blocks=(4,) * 6, growth=12),
    "tiny": Config(first=6, growth=4, blocks=(1, 2, 2), strides=(2, 2)),
}


class DenseBlock(nn.Module):
    """Layers of which each sees the input and all earlier layers' maps; the answer is the new maps alone."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, dim=1)))
        return torch.cat(maps[1:], dim=1)


class FCDenseNet(nn.Module):
    """The network of given parts; the lists on the way up begin with the coarsest."""

    def __init__(
        self,
        first: nn.Module,
        encoder: Sequence[nn.Module],
        downs: Sequence[nn.Module],
        bottleneck: nn.Module,
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.first, self.bottleneck, self.head = first, bottleneck, head
        self.encoder, self.downs = nn.ModuleList(encoder), nn.ModuleList(downs)
        self.ups, self.decoder = nn.ModuleList(ups), nn.ModuleList(decoder)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.first(x), []
        for block, down in zip(self.encoder, self.downs, strict=True):
            skips.append(torch.cat((x, block(x)), dim=1))
            x = down(skips[-1])
        new = self.bottleneck(x)
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = _blocks.join(skips.pop(), up(new))
            new = block(x)
        return self.head(torch.cat((x, new), dim=1))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An FC-DenseNet of the given blocks."""
    dims, growth = spatial_dims, config.growth

    def layer(inputs: int, outputs: int, kernel: Size) -> nn.Sequential:
        return nn.Sequential(
            _blocks.norm(config.norm, inputs),
            _blocks.activation("relu", inputs),
            _blocks.conv(dims, inputs, outputs, kernel),
            nn.Dropout(config.dropout),
        )

    def dense(inputs: int, layers: int) -> nn.Module:
        return DenseBlock([layer(inputs + n * growth, growth, config.kernel) for n in range(layers)])

    channels, widths, encoder, downs = config.first, [], [], []
    for layers, stride in zip(config.blocks[:-1], config.strides, strict=True):
        encoder.append(dense(channels, layers))
        channels += layers * growth
        downs.append(layer(channels, channels, 1).append(_blocks.max_pool(dims, stride)))
        widths.append(channels)
    bottleneck = dense(channels, config.blocks[-1])
    ups, decoder = [], []
    for level in reversed(range(len(widths))):
        new = config.blocks[level + 1] * growth
        ups.append(_blocks.transposed(dims, new, new, config.strides[level], config.kernel))
        channels = widths[level] + new
        decoder.append(dense(channels, config.blocks[level]))
    first = _blocks.conv(dims, in_channels, config.first, config.kernel)
    head = _blocks.conv(dims, channels + config.blocks[0] * growth, out_channels, 1)
    return _blocks.initialise(FCDenseNet(first, encoder, downs, bottleneck, ups, decoder, head))
