"""LRR: scores reconstructed from few coefficients a class, then refined by finer maps where classes meet.

The paper takes the patterns of each class from the principal components of its label patches, and keeps them. Here they begin as
cosines, which such components look like, and are learned. Its further objective, classes grown and shrunk, is left out.

Family: pyramid
Paper: Ghiasi, Fowlkes 2016, Laplacian pyramid reconstruction and refinement for semantic segmentation, arXiv:1605.02264

Presets:
    4x: VGG16, refined by its maps of strides 16, 8 and 4: 162,539,144 parameters for 3 channels and 21 classes in 2D, of which
        134,260,544 are those of the trunk and its fully connected layers.
    8x: without the finest map.
    16x: refined once.
    32x: reconstruction alone.
    resnet101: a ResNet in place of the VGG.
    tiny: ResNet-10, narrow, three patterns a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.models import _blocks
from medseg.models._backbones import Trunk, resnet, vgg
from medseg.models._backbones.vgg import vgg_hidden
from medseg.models._blocks import NormName, Output, Positive, Share, Width
from medseg.models._resizing import resize_like
from medseg.settings import Settings

COARSEST = 32
STEP = 4  # from a map to the scores that are reconstructed from it


class Config(Settings):
    """Options of an LRR.

    Args:
        trunk: what sees the image.
        stride: of the finest map that refines the scores; they have a quarter of it.
        width: of the trunk, 1 for the paper's.
        hidden: channels of the convolutions in place of fully connected layers; a ResNet has none.
        patterns: of each class.
        norm: of a ResNet; a VGG has none.
        dropout: share of values dropped after each of the hidden convolutions, 0 to 1.
        aux: in training also the scores before each refinement.
    """

    trunk: Literal["vgg8", "vgg16", "resnet10", "resnet50", "resnet101"] = "vgg16"
    stride: Literal[4, 8, 16, 32] = 4
    width: Width = 1.0
    hidden: Positive = 4096
    patterns: Positive = 10
    norm: NormName = "batch"
    dropout: Share = 0.5
    aux: bool = False


PRESETS = {
    "4x": Config(),
    "8x": Config(stride=8),
    "16x": Config(stride=16),
    "32x": Config(stride=32),
    "resnet101": Config(trunk="resnet101"),
    "tiny": Config(trunk="resnet10", width=5 / 64, patterns=3),
}


class Reconstruction(nn.Module):
    """Scores of four times a map's size: of each class, its own patterns, weighted and overlapping by half (section 3)."""

    def __init__(self, dims: int, inputs: int, classes: int, patterns: int) -> None:
        super().__init__()
        self.classes = classes
        self.weigh = _blocks.conv(dims, inputs, classes * patterns, 5)
        self.patterns = nn.Parameter(cosines(dims, patterns, 2 * STEP).repeat(classes, *[1] * (dims + 1)))

    def forward(self, x: Tensor) -> Tensor:
        up = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        return up(self.weigh(x), self.patterns, stride=STEP, padding=STEP // 2, groups=self.classes)


def cosines(dims: int, count: int, size: int) -> Tensor:
    """Products of cosines, slow ones first, under a window that lets neighbours add up to one: `(count, 1, *size)`.

    The first is linear interpolation. Their sum keeps the scale of the weights.
    """
    places = (torch.arange(size) + 0.5) / size
    window = 1 - (2 * places - 1).abs()
    waves = sorted(product(range(size), repeat=dims), key=lambda wave: sum(n * n for n in wave))
    found = []
    for wave in waves[:count]:
        pattern = torch.tensor(count**-0.5)
        for turns in wave:
            pattern = pattern[..., None] * window * (torch.pi * turns * places).cos()
        found.append(pattern)
    return torch.stack(found)[:, None]


def near_boundary(scores: Tensor, reach: int = STEP) -> Tensor:
    """By how much each class's probability differs within a reach of each voxel, 0 to 1 (section 4): where to refine."""
    p = scores.softmax(1) if scores.shape[1] > 1 else scores.sigmoid()
    return _most(p, reach) + _most(-p, reach)


def _most(x: Tensor, reach: int) -> Tensor:
    """Maxima over a box around each voxel, one axis at a time."""
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    for axis in range(x.ndim - 2):
        ahead = [reach if n == axis else 0 for n in range(x.ndim - 2)]
        x = pool(x, [2 * n + 1 for n in ahead], 1, ahead)
    return x


class LRR(nn.Module):
    """The network of given parts.

    Args:
        trunk: maps; those of strides 4, 8 and 16 are among them.
        deepest: from the last of them to stride 32.
        levels: reconstructions from stride 32 and finer maps, coarsest first.
        aux: in training, give the scores before each refinement too.
    """

    def __init__(self, trunk: Trunk, deepest: nn.Module, levels: Sequence[nn.Module], *, aux: bool) -> None:
        super().__init__()
        self.trunk, self.deepest, self.levels, self.aux = trunk, deepest, nn.ModuleList(levels), aux

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)
        seen = {1: x} | dict(zip(self.trunk.strides, maps, strict=True)) | {COARSEST: self.deepest(maps[-1])}
        scores: list[Tensor] = []
        stride = COARSEST
        for level in self.levels:
            detail = _blocks.crop_like(level(seen[stride]), seen[stride // STEP])
            if scores:
                coarse = resize_like(scores[0], detail)
                detail = coarse + near_boundary(coarse) * detail
            scores.insert(0, detail)
            stride //= 2
        logits, *coarser = [resize_like(scores[0], x), *scores[1:]]
        return Output(logits, tuple(coarser)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """An LRR on the trunk that the configuration names."""
    dims, depth = spatial_dims, int(config.trunk.removeprefix("vgg").removeprefix("resnet"))
    if config.trunk.startswith("vgg"):
        trunk = vgg(dims, in_channels, depth, width=config.width)
        hidden = vgg_hidden(dims, trunk.channels[-1], config.hidden, 7, dropout=config.dropout)
        deepest, last = nn.Sequential(_blocks.max_pool(dims), hidden), config.hidden
    else:
        trunk = resnet(dims, in_channels, depth, width=config.width, norm=config.norm)
        deepest, last = nn.Sequential(), trunk.channels[-1]
    channels = dict(zip(trunk.strides, trunk.channels, strict=True)) | {COARSEST: last}
    strides = [stride for stride in (32, 16, 8, 4) if stride >= config.stride]
    levels = [Reconstruction(dims, channels[stride], out_channels, config.patterns) for stride in strides]
    return _blocks.initialise(LRR(trunk, deepest, levels, aux=config.aux))
