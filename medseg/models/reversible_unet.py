"""Partially reversible U-Net: within a resolution, what a block was given follows from what it made, and need not be kept.

Memory in training then grows with the number of resolutions and not with the number of blocks; a step takes about a third longer.

Family: u-shape
Paper: Brügger, Baumgartner, Konukoglu 2019, A partially reversible U-Net for memory-efficient volumetric image segmentation,
    arXiv:1906.06148
Without: torch.compile (it has its own way back)

Presets:
    paper: five resolutions of 60 to 480 channels, skip connections that add, linear upsampling; in blocks, normalisation and
        rectifier come first, as in the authors' code.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, PerAxis, Times
from medseg.models._reversible import Reversible
from medseg.settings import Settings


class Config(Settings):
    """Options of a partially reversible U-Net.

    Args:
        widths: channels of the resolutions, finest first: even, for a block works on two halves.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        blocks: reversible blocks of each resolution, on the way down and again on the way up.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation before the rectifier and the convolution of each block: one without running figures, which would see each
            batch twice.
    """

    widths: tuple[Annotated[int, Field(ge=2, multiple_of=2)], ...] = (60, 120, 240, 360, 480)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    blocks: Times = 1
    kernel: Kernel = 3
    norm: Literal["none", "instance", "group"] = "group"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.widths) - 1, strides=self.strides)
        return self


PRESETS = {"paper": Config(), "tiny": Config(widths=(4, 6, 8), strides=(2, 2))}


class ReversibleUNet(nn.Module):
    """The network of given parts; the lists on the way up begin with the coarsest."""

    def __init__(
        self,
        stem: nn.Module,
        encoder: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.stem, self.head = stem, head
        self.encoder, self.decoder, self.ups = nn.ModuleList(encoder), nn.ModuleList(decoder), nn.ModuleList(ups)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for stage, up in zip(self.decoder, self.ups, strict=False):
            skip = skips.pop()
            x = skip + _blocks.crop_like(up(stage(x)), skip)
        return self.head(self.decoder[-1](x))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A partially reversible U-Net of the given widths and strides."""
    dims, widths, bare = spatial_dims, config.widths, config.norm == "none"

    def half(width: int) -> nn.Module:
        conv = _blocks.conv(dims, width // 2, width // 2, config.kernel, bias=bare)
        rectifier = nn.LeakyReLU(inplace=not bare)  # without a normalisation it sees the half that is kept
        return _blocks.initialise(nn.Sequential(_blocks.norm(config.norm, width // 2), rectifier, conv))

    def blocks(width: int) -> nn.Module:
        return Reversible([(half(width), half(width)) for _ in range(config.blocks)])

    encoder: list[nn.Module] = [blocks(widths[0])]
    decoder: list[nn.Module] = [blocks(widths[0])]
    ups: list[nn.Module] = []
    for fine, coarse, stride in zip(widths, widths[1:], config.strides, strict=False):
        down = nn.Sequential(_blocks.max_pool(dims, stride), _blocks.conv(dims, fine, coarse, 1))
        encoder.append(nn.Sequential(*down, blocks(coarse)))
        decoder.insert(0, blocks(coarse))
        up = _blocks.upsample(dims, stride, linear=True)
        ups.insert(0, nn.Sequential(_blocks.conv(dims, coarse, fine, 1), up))
    # what no rectifier follows keeps torch's own initialisation, in which sums over so many resolutions stay small
    stem = _blocks.conv(dims, in_channels, widths[0], config.kernel, bias=False)
    head = _blocks.conv(dims, widths[0], out_channels, 1)
    return ReversibleUNet(stem, encoder, decoder, ups, head)
