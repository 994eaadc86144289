"""Gated-SCNN: a stream of shapes beside the stream of classes, which lets through what the classes ask for.

The image's edges are the magnitude of its Sobel gradients, divided by their maximum, where the paper has Canny's: they are
computed inside the network, in 2D and 3D, and follow it into an export. In training the logits of boundaries come with the
scores, in `Output.boundary`: the loss `dual_task` is the paper's. Other losses train the shape stream by the scores alone.

Family: boundary
Paper: Takikawa, Acuna, Jampani, Fidler 2019, Gated-SCNN: gated shape CNNs for semantic segmentation, arXiv:1907.05740

Presets:
    wide_resnet38: WideResNet-38 of stride 8, rates 12, 24 and 36: 137,286,317 parameters for 3 channels and 19 classes in 2D.
    tiny: one narrow block a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._backbones import Trunk, wide_resnet38
from medseg.models._backbones.resnet import basic
from medseg.models._blocks import NormName, Output, Positive, Times, Width
from medseg.models._context import ASPP
from medseg.models._convs import unit
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a Gated-SCNN.

    Args:
        width: of the trunk, 1 for 64 to 4096 channels.
        blocks: of each of its stages at most; none for the paper's.
        stride: of the trunk's last map, 8, 16 or 32.
        shapes: channels at the end of the shape stream; twice and four times as many before.
        channels: of each branch of the fusion.
        fine: channels that the trunk's map of stride 2 adds.
        rates: dilations of the fusion's 3x3 branches, meant for stride 8.
        norm: before or after each convolution.
    """

    width: Width = 1.0
    blocks: Times | None = None
    stride: Literal[8, 16, 32] = 8
    shapes: Positive = 8
    channels: Positive = 256
    fine: Positive = 48
    rates: tuple[Positive, ...] = (12, 24, 36)
    norm: NormName = "batch"


PRESETS = {
    "wide_resnet38": Config(),
    "tiny": Config(width=3 / 128, blocks=1, shapes=4, channels=6, fine=4, rates=(2, 4)),
}


class GatedConvolution(nn.Module):
    """A map whose voxels are weighted, 1 to 2, by what it and a map of the classes' stream say; then 1x1 (equations 1, 2)."""

    def __init__(self, dims: int, channels: int, norm: NormName) -> None:
        super().__init__()
        both = channels + 1
        self.gate = nn.Sequential(
            _blocks.norm(norm, both),
            _blocks.conv(dims, both, both, 1),
            nn.ReLU(inplace=True),
            _blocks.conv(dims, both, 1, 1),
            _blocks.norm(norm, 1),
            nn.Sigmoid(),
        )
        self.conv = _blocks.conv(dims, channels, channels, 1, bias=False)

    def forward(self, shapes: Tensor, classes: Tensor) -> Tensor:
        return self.conv(shapes * (1 + self.gate(torch.cat((shapes, classes), dim=1))))


class ShapeStream(nn.Module):
    """From the trunk's first map, at its size: in each step a residual block, fewer channels, and a gate (figure 2).

    Args:
        steps: from shapes to the next shapes.
        views: from a deeper map of the trunk each to what is shown to the gate.
        gates: of the steps.
        last: from shapes to logits of boundaries.
    """

    def __init__(
        self, steps: Sequence[nn.Module], views: Sequence[nn.Module], gates: Sequence[nn.Module], last: nn.Module
    ) -> None:
        super().__init__()
        self.steps, self.views, self.gates = map(nn.ModuleList, (steps, views, gates))
        self.last = last

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        shapes, *deeper = maps
        for step, view, gate, classes in zip(self.steps, self.views, self.gates, deeper, strict=True):
            shapes = gate(step(shapes), resize_like(view(classes), shapes))
        return self.last(shapes)


class Fusion(nn.Module):
    """Scores from the trunk's last map, its second, and edges (section 3.1, fusion module).

    Args:
        context: branches that see the last map.
        border: the branch that sees the edges, brought to that map's size.
        deep: of all branches, joined.
        fine: of the second map, to whose size the deep one goes.
        scores: of both, joined.
    """

    def __init__(
        self, context: nn.Module, border: nn.Module, deep: nn.Module, fine: nn.Module, scores: nn.Module
    ) -> None:
        super().__init__()
        self.context, self.border, self.deep, self.fine, self.scores = context, border, deep, fine, scores

    def forward(self, maps: Sequence[Tensor], edges: Tensor) -> Tensor:
        last = self.context(maps[-1])
        deep = self.deep(torch.cat((self.border(resize_like(edges, last)), last), dim=1))
        fine = self.fine(maps[1])
        return self.scores(torch.cat((fine, resize_like(deep, fine)), dim=1))


class GatedSCNN(nn.Module):
    """The network of given parts.

    Args:
        trunk: the stream of classes.
        shapes: from its first map and three deeper ones to logits of boundaries, at the size of the first.
        edges: from these and the image's own to one map.
        fusion: from the trunk's maps and the edges to scores.
    """

    def __init__(self, trunk: Trunk, shapes: ShapeStream, edges: nn.Module, fusion: Fusion) -> None:
        super().__init__()
        self.trunk, self.shapes, self.edges, self.fusion = trunk, shapes, edges, fusion

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)
        boundary = self.shapes((maps[0], maps[2], maps[3], maps[-1]))
        edges = self.edges(torch.cat((boundary.sigmoid(), gradient_magnitude(x).to(boundary)), dim=1)).sigmoid()
        logits = resize_like(self.fusion(maps, edges), x)
        return Output(logits, boundary=boundary) if self.training else logits


def gradient_magnitude(x: Tensor) -> Tensor:
    """The length of the Sobel gradient of the mean of an image's channels, `(B, 1, *spatial)`, as a share of its maximum."""
    axes = range(2, x.ndim)
    grey = x.mean(1, keepdim=True)
    squares = [_along(grey, axis, axes).square() for axis in axes]
    length = sum(squares[1:], squares[0]).sqrt()
    return length / length.amax(tuple(axes), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def _along(x: Tensor, axis: int, axes: Sequence[int]) -> Tensor:
    """The difference of both neighbours along an axis, smoothed (1, 2, 1) along the others; the edge is repeated."""
    for other in axes:
        padded = F.pad(x, [n for a in reversed(axes) for n in ((1, 1) if a == other else (0, 0))], mode="replicate")
        size = x.shape[other]
        before, here, after = (padded.narrow(other, start, size) for start in range(3))
        x = after - before if other == axis else before + 2 * here + after
    return x


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A WideResNet-38, the shape stream, the fusion."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = wide_resnet38(
        dims,
        in_channels,
        width=config.width,
        blocks=config.blocks,
        norm=norm,
        output_stride=config.stride,
    )
    first, second, *middle, _, last = trunk.channels
    context = ASPP(dims, last, width, config.rates, norm=norm)[0]
    branches = width * (len(config.rates) + 3)
    scores = nn.Sequential(
        unit(dims, width + config.fine, width, norm=norm),
        unit(dims, width, width, norm=norm),
        _blocks.conv(dims, width, out_channels, 1, bias=False),
    )
    fusion = Fusion(
        context,
        unit(dims, 1, width, 1, norm=norm),
        _blocks.conv(dims, branches, width, 1, bias=False),
        _blocks.conv(dims, second, config.fine, 1, bias=False),
        scores,
    )
    shapes = _shape_stream(dims, (first, *middle, last), config.shapes, norm)
    return _blocks.initialise(GatedSCNN(trunk, shapes, _blocks.conv(dims, 2, 1, 1, bias=False), fusion))


def _shape_stream(dims: int, channels: Sequence[int], shapes: int, norm: NormName) -> ShapeStream:
    first, *deeper = channels
    widths = (first, 4 * shapes, 2 * shapes, shapes)
    steps = [
        nn.Sequential(basic(dims, before, before, norm=norm), _blocks.conv(dims, before, after, 1))
        for before, after in pairwise(widths)
    ]
    views = [_blocks.conv(dims, width, 1, 1) for width in deeper]
    gates = [GatedConvolution(dims, width, norm) for width in widths[1:]]
    return ShapeStream(steps, views, gates, _blocks.conv(dims, shapes, 1, 1, bias=False))
