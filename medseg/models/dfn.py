"""DFN: from the mean of the image to fine maps, of which each channel is weighted by what coarser stages say of it.

Of the paper's two networks this is the smooth one, which makes the scores. The border network takes no part in them: it gives
the trunk a further task in training, whose target is not classes.

Family: attention
Paper: Yu, Wang, Peng, Gao, Yu, Sang 2018, Learning a discriminative feature network for semantic segmentation,
    arXiv:1804.09337
Without: torch.compile (stages of the trunk run one by one)

Presets:
    resnet101: ResNet-101 of stride 32, 512 channels: 87,481,941 parameters for 3 channels and 21 classes in 2D.
    resnet50: a smaller trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Output, Positive, Width
from medseg.models._context import ImagePooling
from medseg.models._convs import Residual, relu, unit
from medseg.models._resizing import global_mean, resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a DFN.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        channels: of all maps after the trunk.
        norm: after each convolution.
        aux: in training also the scores of the coarser stages (deep supervision, section 3.3).
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    channels: Positive = 512
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {
    "resnet101": Config(),
    "resnet50": Config(depth=50),
    "tiny": Config(depth=10, width=1 / 13, channels=10),
}


def refinement_residual(dims: int, inputs: int, outputs: int, norm: NormName) -> nn.Sequential:
    """A 1x1 convolution to the channels, and a residual block of two of 3x3 (RRB, figure 2 b)."""
    first = _blocks.conv(dims, inputs, outputs, 1, bias=norm == "none")
    body = nn.Sequential(unit(dims, outputs, outputs, norm=norm), _blocks.conv(dims, outputs, outputs, bias=False))
    return nn.Sequential(first, Residual(body, act=relu))


class ChannelAttention(nn.Module):
    """A fine map, each channel weighted by the means of both maps, and the coarse one (CAB, figure 2 c; equations 3 and 4)."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            _blocks.conv(dims, 2 * channels, channels, 1),
            nn.ReLU(),
            _blocks.conv(dims, channels, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return fine * self.weigh(global_mean(torch.cat((fine, coarse), dim=1))) + coarse


class DFN(nn.Module):
    """The smooth network of given parts. All but the first two are those of the stages, coarsest first (figure 2 a).

    Args:
        trunk: from the image to maps.
        image: what the whole image says, from the coarsest map.
        before: of the trunk's maps.
        attention: of each with what came from coarser ones.
        after: of the answers.
        scores: of the stages that are asked for: of the finest, or of all.
    """

    def __init__(
        self,
        trunk: Trunk,
        image: nn.Module,
        before: Sequence[nn.Module],
        attention: Sequence[nn.Module],
        after: Sequence[nn.Module],
        scores: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        self.trunk, self.image, self.scores = trunk, image, nn.ModuleList(scores)
        self.before, self.attention, self.after = map(nn.ModuleList, (before, attention, after))

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = self.trunk(x)[:0:-1]
        y, stages = self.image(maps[0]), list[Tensor]()
        for map_, before, attention, after in zip(maps, self.before, self.attention, self.after, strict=True):
            fine = before(map_)
            y = after(attention(fine, resize_like(y, fine)))
            stages.append(y)
        *others, last = self.scores
        logits = resize_like(last(y), x)
        if not self.training or not others:
            return logits
        coarser = [score(stage) for score, stage in zip(others, stages[:-1], strict=True)]
        return Output(logits, tuple(reversed(coarser)))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A ResNet, and from the mean of its last map up to stride 4."""
    dims, norm, width = spatial_dims, config.norm, config.channels
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm)
    coarsest_first = trunk.channels[:0:-1]
    before = [refinement_residual(dims, channels, width, norm) for channels in coarsest_first]
    after = [refinement_residual(dims, width, width, norm) for _ in coarsest_first]
    attention = [ChannelAttention(dims, width) for _ in coarsest_first]
    scores = [_blocks.conv(dims, width, out_channels, 1) for _ in range(len(before) if config.aux else 1)]
    image = ImagePooling(dims, coarsest_first[0], width, norm=norm)
    return _blocks.initialise(DFN(trunk, image, before, attention, after, scores))
