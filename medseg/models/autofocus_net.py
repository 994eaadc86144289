"""Autofocus network: convolutions that look at several sizes of neighbourhood with the same weights, and choose at each voxel.

Family: u-shape
Paper: Qin, Kamnitsas, Ancha, Nanavati, Cottrell, Criminisi, Nori 2018, Autofocus layer for semantic segmentation,
    arXiv:1805.08403

There is no pooling: from the third convolution on, kernels are spread instead.

Presets:
    afn6: the paper's eight convolutions, 30 to 50 channels, of which all but the first two are autofocus layers of the dilations
        2, 6, 10 and 14.
    afn1: the last one alone is.
    afn2: the last two are.
    afn3: the last three are.
    afn4: the last four are.
    afn5: the last five are.
    basic: none is.
    tiny: two autofocus layers and few channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Kernel, NormName, Positive
from medseg.settings import Settings


class Config(Settings):
    """Options of an autofocus network.

    Args:
        widths: channels of each convolution: an even number of them, for two make a residual unit.
        autofocus: how many convolutions, counted from the last, are autofocus layers.
        spread: dilation of the others from the third one on.
        dilations: those that an autofocus layer chooses from.
        kernel: odd size of convolutions, one number or one an axis.
        norm: normalisation after each convolution, of each dilation for itself.
    """

    widths: tuple[Positive, ...] = (30, 30, 40, 40, 40, 40, 50, 50)
    autofocus: Annotated[int, Field(ge=0)] = 6
    spread: Positive = 2
    dilations: tuple[Positive, ...] = (2, 6, 10, 14)
    kernel: Kernel = 3
    norm: NormName = "batch"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.widths) % 2 or not self.widths or self.autofocus > len(self.widths):
            raise ValueError(
                "expected an even number of widths, and autofocus at most as many; "
                f"got {self.widths} and {self.autofocus}"
            )
        return self


PRESETS = {
    "afn6": Config(),
    **{f"afn{n}": Config(autofocus=n) for n in range(1, 6)},
    "basic": Config(autofocus=0),
    "tiny": Config(widths=(6, 6, 8, 8), autofocus=2, dilations=(1, 2, 3)),
}


class Autofocus(nn.Module):
    """The rectified answers of one convolution at several dilations, weighted at each voxel (equations 2 and 3).

    Args:
        dims: spatial axes.
        inputs: channels in.
        outputs: channels out.
        config: kernel, dilations and normalisation.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, config: Config) -> None:
        super().__init__()
        self.conv = _blocks.conv(dims, inputs, outputs, config.kernel)
        self.norms = nn.ModuleList(_blocks.norm(config.norm, outputs) for _ in config.dilations)
        half = max(1, inputs // 2)
        look = _blocks.conv(dims, inputs, half, config.kernel)
        self.attention = nn.Sequential(look, nn.ReLU(), _blocks.conv(dims, half, len(config.dilations), 1))
        self.dilations = config.dilations
        self.convolve = nn.functional.conv2d if dims == 2 else nn.functional.conv3d

    def forward(self, x: Tensor) -> Tensor:
        shares = self.attention(x).softmax(dim=1).unbind(dim=1)  # of each dilation (B, *spatial)
        maps = (norm(self.at(x, dilation)).relu() for norm, dilation in zip(self.norms, self.dilations, strict=True))
        return torch.stack([share.unsqueeze(1) * map_ for share, map_ in zip(shares, maps, strict=True)]).sum(0)

    def at(self, x: Tensor, dilation: int) -> Tensor:
        """The convolution with its kernel spread by a dilation, which keeps the size."""
        weight: Tensor = self.conv.weight  # type: ignore[assignment]
        padding = tuple(dilation * (k // 2) for k in weight.shape[2:])
        return self.convolve(x, weight, self.conv.bias, padding=padding, dilation=dilation)  # type: ignore[arg-type]


class Unit(nn.Module):
    """Two layers added to what they were given, or to a 1x1 convolution of it."""

    def __init__(self, layers: Sequence[nn.Module], past: nn.Module) -> None:
        super().__init__()
        self.body, self.past = nn.Sequential(*layers), past

    def forward(self, x: Tensor) -> Tensor:
        return self.past(x) + self.body(x)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An autofocus network of the given layers."""
    dims, kernel = spatial_dims, _blocks.ntuple(config.kernel, spatial_dims)
    layer = nn.Conv2d if dims == 2 else nn.Conv3d

    def plain(inputs: int, outputs: int, dilation: int) -> nn.Module:
        padding = tuple(dilation * (k // 2) for k in kernel)
        conv = layer(inputs, outputs, kernel, padding=padding, dilation=dilation)  # type: ignore[arg-type]
        return nn.Sequential(conv, _blocks.norm(config.norm, outputs), nn.ReLU())

    inputs, layers = in_channels, []
    for index, width in enumerate(config.widths):
        focused = index >= len(config.widths) - config.autofocus
        one = (
            Autofocus(dims, inputs, width, config)
            if focused
            else plain(inputs, width, config.spread if index > 1 else 1)
        )
        layers.append(one)
        inputs = width
    ends = (in_channels, *config.widths[1::2])
    units = []
    for index, (a, b) in enumerate(itertools.pairwise(ends)):
        past = nn.Identity() if a == b else _blocks.conv(dims, a, b, 1)
        units.append(Unit(layers[2 * index : 2 * index + 2], past))
    return _blocks.initialise(nn.Sequential(*units, _blocks.conv(dims, inputs, out_channels, 1)))
