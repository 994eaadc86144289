"""Attention U-Net: a U-Net whose skip connections are weighted by what the coarser level has found.

Family: u-shape
Paper: Oktay et al. 2018, Attention U-Net: learning where to look for the pancreas, arXiv:1804.03999
Equation: 1 and 2

Presets:
    paper: in its common form with 64 to 1024 channels: 34,878,573 parameters
        for 3 channels and 1 class in 2D. The gate compares the skip with the map already doubled, at the skip's own size.
    ct150: the authors' network for CT-150, 16 to 256 channels: a gate is opened by the coarser level's own map, two gates look at
        each skip but the finest, and the scores of all levels make the last: 6.40 M weights of convolutions (table 1), with their
        biases and normalisations 6,410,933 parameters for 1 channel and 15 classes in 3D.
    tiny: the common form with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import Gate
from medseg.models._blocks import Size
from medseg.models._grid_attention import grid_attention_unet
from medseg.models._ushape import Levels, convs


class Config(Levels):
    """Options of an Attention U-Net: levels, and

    Args:
        gate: what opens a gate: the doubled map, at the skip's size, or the coarser level's own, on a grid of its size.
    """

    gate: Literal["doubled", "grid"] = "doubled"


PRESETS = {
    "paper": Config(),
    "ct150": Config(widths=(16, 32, 64, 128, 256), gate="grid"),
    "tiny": Config(widths=(4, 6, 8), strides=(2, 2)),
}


class AttentionUNet(nn.Module):
    """The network of given parts; the lists on the way up begin with the coarsest."""

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        gates: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder, self.ups = nn.ModuleList(encoder), nn.ModuleList(ups)
        self.gates, self.decoder, self.head = nn.ModuleList(gates), nn.ModuleList(decoder), head

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, gate, stage in zip(self.ups, self.gates, self.decoder, strict=True):
            skip = skips.pop()
            x = _blocks.crop_like(up(x), skip)
            x = stage(_blocks.join(gate(skip, x), x))
        return self.head(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An Attention U-Net of the given widths and strides."""
    dims, widths = spatial_dims, config.widths
    if config.gate == "grid":
        return _blocks.initialise(grid_attention_unet(config, dims, in_channels, out_channels))

    row = partial(convs, dims, kernel=config.kernel, norm=config.norm)

    def up(inputs: int, outputs: int, stride: Size) -> nn.Module:
        return nn.Sequential(_blocks.upsample(dims, stride), row(inputs, outputs))

    encoder: list[nn.Module] = [row(in_channels, widths[0], widths[0])]
    ups: list[nn.Module] = []
    gates: list[nn.Module] = []
    decoder: list[nn.Module] = []
    for fine, coarse, stride in zip(widths, widths[1:], config.strides, strict=False):
        encoder.append(nn.Sequential(_blocks.max_pool(dims, stride), row(fine, coarse, coarse)))
        ups.insert(0, up(coarse, fine, stride))
        gates.insert(0, Gate(dims, fine, max(1, fine // 2), config.norm))
        decoder.insert(0, row(2 * fine, fine, fine))
    head = _blocks.conv(dims, widths[0], out_channels, 1)
    return _blocks.initialise(AttentionUNet(encoder, ups, gates, decoder, head))
