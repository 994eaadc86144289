"""Ladder DenseNet: a DenseNet, and a thin way up whose steps blend what has come with the maps of the dense blocks.

Family: dense
Paper: Kreso, Segvic, Krapac 2017, Ladder-style DenseNets for semantic segmentation of large natural images, ICCV workshops 2017

Presets:
    densenet121: 9,190,675 parameters for 3 channels and 19 classes in 2D, of which the way up has 1.1 million.
    densenet169: the deeper trunk.
    tiny: one layer a block, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import DenseNetDepth, Trunk, densenet
from medseg.models._blocks import NormName, Output, Positive, Width
from medseg.models._convs import ahead
from medseg.models._resizing import resize_like
from medseg.models._segmenter import with_auxiliary
from medseg.settings import Settings


class Config(Settings):
    """Options of a Ladder DenseNet.

    Args:
        depth: layers of the DenseNet: 13 is smaller than any of that paper.
        width: of the trunk, 1 for the published one.
        context: channels before the 3x3 convolution at the bottom.
        channels: of every map on the way up.
        norm: before each convolution.
        aux: in training also the scores of the map at the bottom, of stride 32.
    """

    depth: DenseNetDepth = 121
    width: Width = 1.0
    context: Positive = 512
    channels: Positive = 128
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {
    "densenet121": Config(),
    "densenet169": Config(depth=169),
    "tiny": Config(depth=13, width=1 / 8, context=16, channels=8),
}


class Blend(nn.Module):
    """A step of the ladder: the map from below, interpolated, beside the lateral one in as many channels; a 3x3 convolution."""

    def __init__(self, dims: int, lateral: int, channels: int, norm: NormName) -> None:
        super().__init__()
        self.lateral = ahead(dims, lateral, channels, 1, norm=norm)
        self.blend = ahead(dims, 2 * channels, channels, norm=norm)

    def forward(self, x: Tensor, lateral: Tensor) -> Tensor:
        return self.blend(torch.cat((resize_like(x, lateral), self.lateral(lateral)), dim=1))


class LadderDenseNet(nn.Module):
    """The network of given parts; its steps begin with the coarsest. Scores are those of its last map, then, if any, of the bottom."""

    def __init__(
        self, trunk: Trunk, context: nn.Module, steps: Sequence[nn.Module], scores: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.trunk, self.context, self.steps = trunk, context, nn.ModuleList(steps)
        self.scores, self.auxiliary = scores[0], nn.ModuleList(scores[1:])

    def forward(self, image: Tensor) -> Tensor | Output:
        _, *laterals, last = self.trunk(image)
        x = bottom = self.context(last)
        for step, lateral in zip(self.steps, reversed(laterals), strict=True):
            x = step(x, lateral)
        return with_auxiliary(resize_like(self.scores(x), image), self.auxiliary, [bottom] * len(self.auxiliary))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A DenseNet, a 1x1 and a 3x3 convolution at its bottom, a step for each finer block, scores at stride 4."""
    dims, norm, channels = spatial_dims, config.norm, config.channels
    trunk = densenet(dims, in_channels, config.depth, width=config.width, norm=norm)
    _, *laterals, last = trunk.channels
    context = nn.Sequential(  # the trunk's last map is normalised and rectified already
        _blocks.conv(dims, last, config.context, 1, bias=norm == "none"),
        ahead(dims, config.context, channels, norm=norm),
    )
    steps = [Blend(dims, lateral, channels, norm) for lateral in reversed(laterals)]
    scores = [nn.Sequential(nn.ReLU(), _blocks.conv(dims, channels, out_channels, 1)) for _ in range(1 + config.aux)]
    return _blocks.initialise(LadderDenseNet(trunk, context, steps, scores))
