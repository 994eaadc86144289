"""Gated feedback refinement network: coarse scores, refined level by level by features that the next coarser level has gated.

Family: u-shape
Paper: Islam, Rochan, Bruce, Wang 2017, Gated feedback refinement network for dense image labeling, CVPR

Presets:
    vgg16: figure 2 over VGG-16 with normalisation and two convolutions of 1024 channels, as the authors' layers for CamVid.
    tiny: VGG-8, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import Trunk, VGGDepth, vgg
from medseg.models._blocks import NormName, Output, Positive, Share, Width
from medseg.models._convs import finished, unit
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a gated feedback refinement network.

    Args:
        depth: layers of the VGG.
        width: of the trunk, 1 for 64 channels at the image's resolution.
        bottom: channels of the two convolutions at the coarsest level.
        norm: normalisation after each convolution, and of each gate.
        dropout: share of values dropped around those two, 0 to 1.
        deep_supervision: in training, the coarser scores too.
    """

    depth: VGGDepth = 16
    width: Width = 1.0
    bottom: Positive = 1024
    norm: NormName = "batch"
    dropout: Share = 0.5
    deep_supervision: bool = True


PRESETS = {"vgg16": Config(), "tiny": Config(depth=8, width=1 / 16, bottom=32, dropout=0.1)}


class Refine(nn.Module):
    """A gate and the scores that it refines (equations 1 to 3): both features have a channel a class."""

    def __init__(self, dims: int, classes: int, norm: NormName) -> None:
        super().__init__()
        self.norm, self.scores = _blocks.norm(norm, classes), _blocks.conv(dims, 2 * classes, classes)

    def forward(self, fine: Tensor, coarse: Tensor, scores: Tensor) -> Tensor:
        gated = self.norm(fine * resize_like(coarse, fine))
        return self.scores(torch.cat((gated, resize_like(scores, fine)), dim=1))


class GFRNet(nn.Module):
    """The network of given parts.

    Args:
        trunk: from the image to maps, finest first, the finest at the image's size.
        pool: makes the coarsest features of the trunk's last map.
        first: makes the first scores of them.
        features: of each map, and last of the pooled one, features with a channel a class.
        refine: the steps, the finest first.
        deep_supervision: in training, give the coarser scores too.
    """

    def __init__(
        self,
        trunk: Trunk,
        pool: nn.Module,
        first: nn.Module,
        features: Sequence[nn.Module],
        refine: Sequence[nn.Module],
        *,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.trunk, self.pool, self.first, self.deep_supervision = trunk, pool, first, deep_supervision
        self.features, self.refine = nn.ModuleList(features), nn.ModuleList(refine)

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)
        maps = (*maps, self.pool(maps[-1]))
        features = [feature(map_) for feature, map_ in zip(self.features, maps, strict=True)]
        scores = [self.first(maps[-1])]
        for level in reversed(range(len(self.refine))):
            scores.append(self.refine[level](features[level], features[level + 1], scores[-1]))
        logits = scores.pop()
        return Output(logits, tuple(reversed(scores))) if self.training and self.deep_supervision else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A trunk, its gates and their refinements."""
    dims, norm = spatial_dims, config.norm
    trunk = vgg(dims, in_channels, config.depth, width=config.width, norm=norm)
    coarsest, wide = trunk.channels[-1], config.bottom
    first = nn.Sequential(
        nn.Dropout(config.dropout),
        unit(dims, coarsest, wide, norm=norm),
        nn.Dropout(config.dropout),
        unit(dims, wide, wide, norm=norm),
        nn.Dropout(config.dropout),
        _blocks.conv(dims, wide, out_channels),
    )
    layers = [_blocks.conv(dims, channels, out_channels) for channels in (*trunk.channels, coarsest)]
    features = [*(finished(layer, out_channels, norm, None) for layer in layers[:-1]), layers[-1]]
    refine = [Refine(dims, out_channels, norm) for _ in trunk.channels]
    net = GFRNet(trunk, _blocks.max_pool(dims), first, features, refine, deep_supervision=config.deep_supervision)
    return _blocks.initialise(net)
