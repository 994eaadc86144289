"""Full-resolution residual network: one stream keeps every voxel, one is pooled, and each unit lets the two speak.

Family: u-shape
Paper: Pohlen, Hermans, Mathias, Leibe 2017, Full-resolution residual networks for semantic segmentation in street scenes,
    arXiv:1611.08323

Presets:
    A: table 1a, down to a sixteenth: 17.7 M parameters.
    B: table 1b, down to a thirty-second: 24.8 M.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, PerAxis, Positive, Size, Times
from medseg.models._convs import Residual, unit
from medseg.models._ushape import convs
from medseg.settings import Settings


class Config(Settings):
    """Options of a full-resolution residual network.

    Args:
        base: channels of the residual units at full resolution.
        lanes: channels of the stream that keeps every voxel.
        widths: channels of the pooled stream after each step down.
        units: units after each step down.
        up_widths: channels of the pooled stream after each step up but the last, the first of which leads out of the coarsest.
        strides: by how much each step down coarsens, one number or one an axis: (2, 2, 1) where slices are thick.
        kernel: odd size of convolutions, one number or one an axis; the first one reaches a voxel further.
        norm: normalisation after each 3x3 convolution.
    """

    base: Positive = 48
    lanes: Positive = 32
    widths: tuple[Positive, ...] = (96, 192, 384, 384)
    units: tuple[Times, ...] = (3, 4, 2, 2)
    up_widths: tuple[Positive, ...] = (192, 192, 96)
    strides: tuple[PerAxis, ...] = (2, 2, 2, 2)
    kernel: Kernel = 3
    norm: NormName = "batch"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _blocks.check_lengths(len(self.widths), units=self.units, strides=self.strides)
        _blocks.check_lengths(len(self.widths) - 1, up_widths=self.up_widths)
        return self


PRESETS = {
    "A": Config(),
    "B": Config(
        widths=(96, 192, 384, 384, 384), units=(3, 4, 2, 2, 2), up_widths=(192, 192, 192, 96), strides=(2, 2, 2, 2, 2)
    ),
    "tiny": Config(base=4, lanes=3, widths=(5, 6), units=(1, 2), up_widths=(5,), strides=(2, 2)),
}


class FullResidual(nn.Module):
    """A full-resolution residual unit (figure 2): the pooled stream sees the lanes, and adds to them what it finds.

    Args:
        dims: spatial axes.
        inputs: channels of the pooled stream before.
        outputs: channels of it after.
        total: by how much the pooled stream is coarser than the lanes, an axis.
        config: lanes, kernel and norm.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, total: Size, config: Config) -> None:
        super().__init__()
        self.pool, self.unpool = _blocks.max_pool(dims, total), _blocks.upsample(dims, total)
        self.body = convs(
            dims, inputs + config.lanes, outputs, outputs, kernel=config.kernel, norm=config.norm, bias=False
        )
        self.to_lanes = _blocks.conv(dims, outputs, config.lanes, 1)

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pool(z)
        y = self.body(torch.cat((_blocks.crop_like(y, pooled), pooled), dim=1))
        return y, z + _blocks.crop_like(self.unpool(self.to_lanes(y)), z)


class FRRN(nn.Module):
    """The network of given parts: each pooling or unpooling is followed by the units of its place."""

    def __init__(
        self,
        stem: nn.Module,
        split: nn.Module,
        resizes: Sequence[nn.Module],
        units: Sequence[Sequence[nn.Module]],
        last: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.stem, self.split, self.last, self.head = stem, split, last, head
        self.resizes, self.units = nn.ModuleList(resizes), nn.ModuleList(map(nn.ModuleList, units))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = self.split(y)
        for resize, units in zip(self.resizes, self.units, strict=True):
            y = resize(y)
            for part in units.children():
                y, z = part(y, z)
        return self.head(_blocks.join(z, self.last(y)))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A full-resolution residual network of the given streams."""
    dims, base, levels = spatial_dims, config.base, len(config.strides)
    totals = [(1,) * dims]
    for stride in config.strides:
        totals.append(tuple(a * b for a, b in zip(totals[-1], _blocks.ntuple(stride, dims), strict=True)))

    def residual(inputs: int) -> nn.Module:
        """A unit of the full-resolution ends."""
        body = convs(dims, inputs, base, base, kernel=config.kernel, norm=config.norm, bias=False)[:-1]
        return Residual(body, None if inputs == base else _blocks.conv(dims, inputs, base, 1, bias=False))

    def row(inputs: int, width: int, count: int, level: int) -> list[nn.Module]:
        return [FullResidual(dims, width if n else inputs, width, totals[level], config) for n in range(count)]

    further = tuple(k + 2 if k > 1 else 1 for k in _blocks.ntuple(config.kernel, dims))
    stem = convs(dims, in_channels, base, kernel=further, norm=config.norm, bias=False)
    stem.extend([residual(base) for _ in range(3)])
    inputs, resizes, units = base, [], []
    for level, (width, count) in enumerate(zip(config.widths, config.units, strict=True), start=1):
        resizes.append(_blocks.max_pool(dims, config.strides[level - 1]))
        units.append(row(inputs, width, count, level))
        inputs = width
    for level, width in zip(range(levels - 1, 0, -1), config.up_widths, strict=True):
        resizes.append(_blocks.upsample(dims, config.strides[level], linear=True))
        units.append(row(inputs, width, 2, level))
        inputs = width
    merge = nn.Sequential(residual(inputs + config.lanes), residual(base), residual(base))
    head = nn.Sequential(merge, _blocks.conv(dims, base, out_channels, 1))
    split = unit(dims, base, config.lanes, 1, norm=config.norm, act=None)
    # torch's own initialisation, in which sums over so many units stay small
    return FRRN(stem, split, resizes, units, _blocks.upsample(dims, config.strides[0], linear=True), head)
