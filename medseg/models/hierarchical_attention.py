"""Hierarchical attention: a coarse size of the image says where it knows better than the next finer one, and so on in a chain.

Family: attention
Paper: Tao, Sapra, Catanzaro 2020, Hierarchical multi-scale attention for semantic segmentation, arXiv:2005.10821

Presets:
    w48: HRNet-W48 with object context, trained on sizes of 0.5 and 1: 72,143,430 parameters for 3 channels and 19 classes in 2D,
        those of that network and 1,770,752 of the attention.
    w48_chain: the same weights on 0.5, 1 and 2, as the paper predicts.
    w18: the narrowest trunk.
    tiny: a narrow trunk of few blocks, sizes of 1 and 2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import HRNetSize, Trunk, hrnet
from medseg.models._blocks import NormName, Output, Share, Width
from medseg.models._convs import finished, unit
from medseg.models._pyramids import Join
from medseg.models._regions import ObjectContext
from medseg.models._resizing import resize_by, resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a hierarchical attention.

    Args:
        trunk: the HRNet.
        width: of the trunk, 1 for the paper's.
        channels: of the map with object context.
        scales: sizes of the image, against its own, smallest first; they share all weights.
        norm: after each convolution but those of the scores.
        dropout: share of values dropped after the object context, 0 to 1.
        aux: in training also the coarse scores of each size, from which the regions are made.
    """

    trunk: HRNetSize = "w48"
    width: Width = 1.0
    channels: Annotated[int, Field(ge=2)] = 512
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2)] = (0.5, 1.0)
    norm: NormName = "batch"
    dropout: Share = 0.05
    aux: bool = False


PRESETS = {
    "w48": Config(),
    "w48_chain": Config(scales=(0.5, 1.0, 2.0)),
    "w18": Config(trunk="w18"),
    "tiny": Config(trunk="w18_small", width=1 / 6, channels=8, scales=(1.0, 2.0)),
}


class Seen(NamedTuple):
    """What one size of the image gives: scores, how far they count against the next size (0 to 1), and coarse scores."""

    scores: Tensor
    share: Tensor
    coarse: Tensor


class OneSize(nn.Module):
    """An HRNet with object context, and the attention (figure 1)."""

    def __init__(self, dims: int, trunk: Trunk, channels: int, outputs: int, norm: NormName, dropout: float) -> None:
        super().__init__()
        total, half = sum(trunk.channels), channels // 2

        def biased(width: int, kernel: int) -> nn.Module:
            return finished(_blocks.conv(dims, total, width, kernel), width, norm)

        self.trunk, self.join = trunk, Join()
        self.coarse = nn.Sequential(biased(total, 1), _blocks.conv(dims, total, outputs, 1))
        self.voxels = biased(channels, 3)
        self.context = ObjectContext(dims, channels, half, dropout=dropout, norm=norm)
        self.scores = _blocks.conv(dims, channels, outputs, 1)
        self.share = nn.Sequential(
            unit(dims, channels, half, norm=norm),
            unit(dims, half, half, norm=norm),
            _blocks.conv(dims, half, 1, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Seen:
        joined = self.join(self.trunk(x))
        coarse = self.coarse(joined)
        seen = self.context(self.voxels(joined), coarse)
        return Seen(self.scores(seen), self.share(seen), coarse)


class HierarchicalAttention(nn.Module):
    """All sizes by the same network; from the smallest up, each share decides between what was found so far and the next."""

    def __init__(self, size: nn.Module, scales: tuple[float, ...], *, aux: bool) -> None:
        super().__init__()
        self.size, self.scales, self.aux = size, scales, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        seen = [self.size(resize_by(x, scale)) for scale in self.scales]
        scores = seen[0].scores
        for coarse, fine in pairwise(seen):  # equation 1
            share = resize_like(coarse.share, fine.scores)
            scores = resize_like(coarse.share * scores, fine.scores) + (1 - share) * fine.scores
        logits = resize_like(scores, x)
        return Output(logits, tuple(one.coarse for one in reversed(seen))) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """One network for all sizes, and the chain."""
    dims, norm = spatial_dims, config.norm
    trunk = hrnet(dims, in_channels, config.trunk, width=config.width, norm=norm)
    size = OneSize(dims, trunk, config.channels, out_channels, norm, config.dropout)
    return _blocks.initialise(HierarchicalAttention(size, config.scales, aux=config.aux))
