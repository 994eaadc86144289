"""ENet: early steps down, thin bottlenecks with dilated and asymmetric convolutions, and a short way back.

Family: real-time
Paper: Paszke, Chaurasia, Kim, Culurciello 2016, ENet: A deep neural network architecture for real-time semantic segmentation,
    arXiv:1606.02147
Without: ONNX (max-unpooling by places has no ONNX of any size)

Presets:
    paper: table 1: 350,670 parameters for 3 channels and 12 classes in 2D.
    tiny: the same stages once each, narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from medseg.models import _blocks, _convs
from medseg.models._blocks import NormName, Positive, Share, Times
from medseg.models._context import Joined
from medseg.models._convs import Residual, finished
from medseg.models._resizing import max_pool_where, unpool
from medseg.settings import Settings

ROUND = (1, 2, "lines", 4, 1, 8, "lines", 16)  # bottlenecks of the coarsest map: dilations, or asymmetric
LATE = 4.0  # He initialisation divided by about so much
LINE = 5  # voxels of an asymmetric convolution


class Config(Settings):
    """Options of an ENet.

    Args:
        channels: after the first block, after the second step down and after the third.
        rounds: how often the eight bottlenecks of the coarsest map are repeated.
        norm: after each convolution but the last.
        dropout: share of channels dropped in each bottleneck, 0 to 1; at stride 4 on the way down a tenth of it.
    """

    channels: tuple[Positive, Positive, Positive] = (16, 64, 128)
    rounds: Times = 2
    norm: NormName = "batch"
    dropout: Share = 0.1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.channels) != sorted(self.channels):
            raise ValueError(f"expected channels that do not fall on the way down; got {self.channels}")
        return self


PRESETS = {"paper": Config(), "tiny": Config(channels=(8, 12, 16), rounds=1)}


class Down(nn.Module):
    """A bottleneck of stride 2 and maxima with channels of zeros, added up; also where the maxima were."""

    def __init__(self, body: nn.Module, more: int, act: nn.Module) -> None:
        super().__init__()
        self.body, self.more, self.act = body, more, act

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maxima, where = max_pool_where(x)
        zeros = maxima.new_zeros(len(maxima), self.more, *maxima.shape[2:])
        return self.act(self.body(x) + torch.cat((maxima, zeros), dim=1)), where


class Up(nn.Module):
    """A bottleneck of twice the size and the map put back where the maxima were, added up."""

    def __init__(self, body: nn.Module, past: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.body, self.past, self.act = body, past, act

    def forward(self, x: Tensor, where: Tensor, size: torch.Size) -> Tensor:
        back = unpool(self.past(x), where, size)
        return self.act(back + _blocks.crop_like(self.body(x), back))


class ENet(nn.Module):
    """The network of given parts, finest first on the way down."""

    def __init__(
        self,
        first: nn.Module,
        downs: Sequence[nn.Module],
        encoder: Sequence[nn.Module],
        ups: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.first, self.head = first, head
        self.downs, self.encoder = nn.ModuleList(downs), nn.ModuleList(encoder)
        self.ups, self.decoder = nn.ModuleList(ups), nn.ModuleList(decoder)

    def forward(self, image: Tensor) -> Tensor:
        x, pooled = self.first(image), []
        for down, stage in zip(self.downs, self.encoder, strict=True):
            size = x.shape[2:]
            x, where = down(x)
            pooled.append((where, size))
            x = stage(x)
        for up, stage in zip(self.ups, self.decoder, strict=True):
            x = stage(up(x, *pooled.pop()))
        return _blocks.crop_like(self.head(x), image)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """The network of table 1. Each rectifier learns one slope for negative values."""
    dims, norm = spatial_dims, config.norm
    least = in_channels + 1  # the first block keeps the image's channels
    fine, middle, coarse = (max(channels, least) for channels in config.channels)
    how: dict[str, Any] = {"norm": norm, "dropout": config.dropout}
    early = how | {"dropout": config.dropout / 10}
    beside = _blocks.conv(dims, in_channels, fine - in_channels, 3, 2, bias=norm == "none")
    first = finished(Joined([beside, _blocks.max_pool(dims)]), fine, norm, nn.PReLU)  # figure 2a
    downs = [_down(dims, fine, middle, **early), _down(dims, middle, coarse, **how)]
    wide = [_regular(dims, coarse, kind, **how) for _ in range(config.rounds) for kind in ROUND]
    encoder = [nn.Sequential(*[_regular(dims, middle, 1, **early) for _ in range(4)]), nn.Sequential(*wide)]
    ups = [_up(dims, coarse, middle, **how), _up(dims, middle, fine, **how)]
    decoder = [
        nn.Sequential(*[_regular(dims, channels, 1, **how) for _ in range(count)])
        for channels, count in ((middle, 2), (fine, 1))
    ]
    head = _blocks.transposed(dims, fine, out_channels, 2, 3, bias=norm == "none")
    net = _blocks.initialise(ENet(first, downs, encoder, ups, decoder, head))
    for part in net.modules():
        if isinstance(part, Residual):
            *_, last = (layer for layer in part.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
            nn.init.kaiming_normal_(last.weight, a=LATE)  # many are added up: small ones keep the scale
    return net


def _regular(dims: int, channels: int, kind: int | str, *, norm: NormName, dropout: float) -> nn.Module:
    """A bottleneck of one size: of 3x3 with a dilation, or of a line along each axis (figure 2b)."""
    thin, unit = _thin(channels), _unit(dims, norm)
    if isinstance(kind, int):
        inner = [unit(thin, thin, dilation=kind)]
    else:
        inner = [unit(thin, thin, tuple(LINE if n == axis else 1 for n in range(dims))) for axis in range(dims)]
    body = nn.Sequential(unit(channels, thin, 1), *inner, unit(thin, channels, 1), _blocks.dropout(dims, dropout))
    return Residual(body, act=nn.PReLU)


def _down(dims: int, inputs: int, outputs: int, *, norm: NormName, dropout: float) -> Down:
    thin, unit = _thin(inputs), _unit(dims, norm)
    step = (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, thin, 2, 2, bias=norm == "none")
    blocks = nn.Sequential(_blocks.Fill(dims, 2), finished(step, thin, norm, nn.PReLU))
    body = nn.Sequential(blocks, unit(thin, thin), unit(thin, outputs, 1), _blocks.dropout(dims, dropout))
    return Down(body, outputs - inputs, nn.PReLU())


def _up(dims: int, inputs: int, outputs: int, *, norm: NormName, dropout: float) -> Up:
    thin, unit = _thin(inputs), _unit(dims, norm)
    step = finished(_blocks.transposed(dims, thin, thin, bias=norm == "none"), thin, norm, nn.PReLU)
    body = nn.Sequential(unit(inputs, thin, 1), step, unit(thin, outputs, 1, act=None), _blocks.dropout(dims, dropout))
    return Up(body, unit(inputs, outputs, 1, act=None), nn.PReLU())


def _unit(dims: int, norm: NormName) -> Callable[..., nn.Sequential]:
    return partial(_convs.unit, dims, norm=norm, act=nn.PReLU)


def _thin(channels: int) -> int:
    return max(channels // 4, 1)
