"""PSANet: each place predicts how much it takes from every other, and how much it gives to it, by where that one lies.

Family: attention
Paper: Zhao, Zhang, Liu, Shi, Loy, Lin, Jia 2018, PSANet: Point-wise spatial attention network for scene parsing, ECCV 2018
Without: ONNX (it becomes one of a fixed number of windows)

Presets:
    resnet50: ResNet-50 of stride 8, attention on a grid of 30 x 30, in 3D of 10 x 10 x 10.
    resnet101: the deeper trunk.
    tiny: ResNet-10, narrow, a small grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Positive
from medseg.models._convs import unit
from medseg.models._dilated import StemOptions, dilated_resnet
from medseg.models._resizing import mean_to, resize_like
from medseg.models._segmenter import Pick, segmenter

PLACES = 1024  # of a grid at most: the attention has the square of it


class Config(StemOptions):
    """Options of a PSANet, besides those of `_dilated.StemOptions`.

    Args:
        grid: elements an axis to which the map is averaged for the attention; fewer where a grid would have over 1024 in all.
        dropout: share of values dropped before the scores, 0 to 1.
    """

    deep_stem: bool = True
    grid: Positive = 30


PRESETS = {"resnet50": Config(), "resnet101": Config(depth=101), "tiny": Config(depth=10, width=1 / 16, grid=4)}


class PointwiseAttention(nn.Module):
    """One way of the attention (section 3.2): each place has a weight for each offset, and each target a softmax over its sources.

    Args:
        dims: spatial axes.
        inputs: channels of the map.
        width: channels that are taken or given.
        grid: elements an axis.
        gives: the weights are those of the source ("distribute"), else of the target ("collect").
        norm: after each convolution.
    """

    def __init__(self, dims: int, inputs: int, width: int, grid: int, *, gives: bool, norm: NormName) -> None:
        super().__init__()
        self.gives = gives
        self.reduce = unit(dims, inputs, width, 1, norm=norm)
        offsets = _blocks.conv(dims, width, (2 * grid - 1) ** dims, 1, bias=False)
        self.weights = nn.Sequential(unit(dims, width, width, 1, norm=norm), offsets)
        self.register_buffer("which", _offsets(dims, grid), persistent=False)
        self.which: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        size = x.shape[2:]
        weights = self.weights(x).flatten(2).mT  # (B, N, offsets)
        weights = weights.gather(2, self.which.expand(len(x), -1, -1))  # (B, N, N): of a place for each other one
        weights = weights.softmax(1).mT if self.gives else weights.softmax(2)  # (B, targets, sources)
        return (x.flatten(2) @ weights.mT).unflatten(2, size)


def _offsets(dims: int, grid: int) -> Tensor:
    """`(N, N)`: the number of the offset from each place of a grid to each other one."""
    places = torch.cartesian_prod(*[torch.arange(grid)] * dims).view(-1, dims)
    steps = places - places[:, None] + grid - 1
    return (steps * (2 * grid - 1) ** torch.arange(dims - 1, -1, -1)).sum(-1)


class Attended(nn.Module):
    """The map beside what all places gave and took, on a grid (figure 3)."""

    def __init__(self, grid: int, ways: nn.ModuleList, project: nn.Module) -> None:
        super().__init__()
        self.grid, self.ways, self.project = grid, ways, project

    def forward(self, x: Tensor) -> Tensor:
        small = mean_to(x, self.grid)
        seen = self.project(torch.cat([way(small) for way in self.ways], dim=1))
        return torch.cat((x, resize_like(seen, x)), dim=1)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet, attention in both ways, one 3x3 unit, scores."""
    dims, norm = spatial_dims, config.norm
    trunk = dilated_resnet(dims, in_channels, config)
    last = trunk.channels[-1]
    width, grid = max(last // 4, 1), config.grid
    while grid**dims > PLACES:
        grid -= 1
    ways = nn.ModuleList(
        [PointwiseAttention(dims, last, width, grid, gives=gives, norm=norm) for gives in (False, True)]
    )
    head = nn.Sequential(
        Pick(-1),
        Attended(grid, ways, unit(dims, 2 * width, last, 1, norm=norm)),
        unit(dims, 2 * last, width, norm=norm),
        nn.Dropout(config.dropout),
        _blocks.conv(dims, width, out_channels, 1),
    )
    return segmenter(dims, trunk, head, out_channels, norm=norm, aux=config.aux)
