"""MultiResUNet: stages that see three sizes of neighbourhood at once, and skips that pass residual units on their way.

Family: u-shape
Paper: Ibtehaz, Rahman 2020, MultiResUNet: rethinking the U-Net architecture for multimodal biomedical image segmentation,
    arXiv:1902.04049

Presets:
    paper: figures 3 to 5, alpha 1.67, 32 to 512 channels: 7.25 M parameters for 3 channels and 1 class in 2D.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Positive, Size
from medseg.models._ushape import Levels, UShape, convs


class Config(Levels):
    """Options of a MultiResUNet: levels, whose widths a stage comes near to, and

    Args:
        alpha: by how much a stage's width, before it is parted by a sixth, a third and a half, exceeds the level's.
    """

    widths: tuple[Positive, ...] = (32, 64, 128, 256, 512)
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.67


PRESETS = {"paper": Config(), "tiny": Config(widths=(6, 8, 10), strides=(2, 2))}


class MultiRes(nn.Module):
    """Three convolutions in a row, whose answers stand side by side, added to a 1x1 convolution (figure 3c)."""

    def __init__(self, dims: int, inputs: int, widths: tuple[int, ...], kernel: Size, norm: NormName) -> None:
        super().__init__()
        outputs = sum(widths)
        rows = zip((inputs, *widths), widths, strict=False)
        self.convs = nn.ModuleList(convs(dims, a, b, kernel=kernel, norm=norm, bias=False) for a, b in rows)
        self.past = nn.Sequential(_blocks.conv(dims, inputs, outputs, 1, bias=False), _blocks.norm(norm, outputs))
        self.together, self.end = _blocks.norm(norm, outputs), _blocks.norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        past, maps = self.past(x), []
        for conv in self.convs:
            x = conv(x)
            maps.append(x)
        return self.end((past + self.together(torch.cat(maps, dim=1))).relu())


class ResUnit(nn.Module):
    """One residual unit of a ResPath: a 3x3 and a 1x1 convolution of the same map, added (figure 4)."""

    def __init__(self, dims: int, inputs: int, outputs: int, kernel: Size, norm: NormName) -> None:
        super().__init__()
        self.body = convs(dims, inputs, outputs, kernel=kernel, norm=norm, bias=False)
        self.past = nn.Sequential(_blocks.conv(dims, inputs, outputs, 1, bias=False), _blocks.norm(norm, outputs))
        self.end = _blocks.norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.end((self.body(x) + self.past(x)).relu())


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A MultiResUNet of the given levels. A ResPath has one unit more with each level that it is finer."""
    dims, levels = spatial_dims, len(config.widths)

    def parts(width: int) -> tuple[int, ...]:
        return tuple(max(1, int(config.alpha * width * share)) for share in (0.167, 0.333, 0.5))

    def stage(inputs: int, width: int) -> MultiRes:
        return MultiRes(dims, inputs, parts(width), config.kernel, config.norm)

    def path(inputs: int, width: int, length: int) -> nn.Module:
        units = (ResUnit(dims, width if n else inputs, width, config.kernel, config.norm) for n in range(length))
        return nn.Sequential(*units)

    inputs = in_channels
    encoder: list[nn.Module] = []
    for level, width in enumerate(config.widths):
        pool = [_blocks.max_pool(dims, config.strides[level - 1])] if level else []
        encoder.append(nn.Sequential(*pool, stage(inputs, width)))
        inputs = sum(parts(width))
    ups, skips, decoder = [], [], []
    for level in reversed(range(levels - 1)):
        width = config.widths[level]
        ups.append(_blocks.transposed(dims, inputs, width, config.strides[level]))
        skips.append(path(sum(parts(width)), width, levels - 1 - level))
        decoder.append(stage(2 * width, width))
        inputs = sum(parts(width))
    head = _blocks.conv(dims, inputs, out_channels, 1)
    return _blocks.initialise(UShape(encoder, ups, decoder, head, skips))
