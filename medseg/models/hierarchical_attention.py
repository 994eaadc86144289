"""Hierarchical attention: a coarse size of the image says where it knows better than finer ones, and so on in a chain.

Family: attention
Paper: Tao, Sapra, Catanzaro 2020, Hierarchical multi-scale attention for semantic segmentation, arXiv:2005.10821

Presets:
    w48: HRNet-W48 with object context, trained on sizes of 0.5 and 1: 72,143,430 parameters for 3 channels and 19 classes in 2D,
        those of that network and 1,770,752 of the attention.
    w48_chain: the same weights on 0.5, 1 and 2, as the paper predicts: a size decides over all that are larger.
    w18: the narrowest trunk.
    tiny: a narrow trunk of few blocks, sizes of 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import HRNetSize, hrnet
from medseg.models._blocks import NormName, Output, Share, Width
from medseg.models._convs import unit
from medseg.models._regions import Regions
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
        aux: in training also the coarse scores, from which the regions are made, of all sizes as one.
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
    "tiny": Config(trunk="w18_small_v1", width=1 / 6, channels=8, scales=(1.0, 2.0)),
}


class Seen(NamedTuple):
    """What one size of the image gives: scores, how far they count against the next size (0 to 1), and coarse scores."""

    scores: Tensor
    share: Tensor
    coarse: Tensor


class OneSize(nn.Module):
    """An HRNet with object context, and the attention (figure 1)."""

    def __init__(self, regions: Regions, scores: nn.Module, share: nn.Module) -> None:
        super().__init__()
        self.regions, self.scores, self.share = regions, scores, share

    def forward(self, x: Tensor) -> Seen:
        seen, coarse = self.regions(x)
        return Seen(self.scores(seen), self.share(seen), coarse)


class HierarchicalAttention(nn.Module):
    """All sizes by the same network; each takes its share of what the smaller ones leave, and the largest takes the rest."""

    def __init__(self, size: nn.Module, scales: tuple[float, ...], *, aux: bool) -> None:
        super().__init__()
        self.size, self.scales, self.aux = size, scales, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        seen = [self.size(resize_by(x, scale)) for scale in self.scales]
        shares = [one.share for one in seen]
        logits = resize_like(self.chained(shares, [one.scores for one in seen]), x)
        if not self.aux or not self.training:
            return logits
        return Output(logits, (self.chained(shares, [one.coarse for one in seen]),))

    def chained(self, shares: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Maps of all sizes as one, from the largest down (equation 1 between each two), no finer than the image's own."""
        *smaller, found = maps
        for scale, share, own in reversed(list(zip(self.scales, shares, smaller, strict=False))):
            size = found if scale < 1 else own
            found = resize_like(share * own, size) + (1 - resize_like(share, size)) * resize_like(found, size)
        return found


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """One network for all sizes, and the chain."""
    dims, norm, width, half = spatial_dims, config.norm, config.channels, config.channels // 2
    trunk = hrnet(dims, in_channels, config.trunk, width=config.width, norm=norm)
    share = nn.Sequential(
        unit(dims, width, half, norm=norm),
        unit(dims, half, half, norm=norm),
        _blocks.conv(dims, half, 1, 1, bias=False),
        nn.Sigmoid(),
    )
    regions = Regions(dims, trunk, width, out_channels, dropout=config.dropout, norm=norm)
    size = OneSize(regions, _blocks.conv(dims, width, out_channels, 1), share)
    return _blocks.initialise(HierarchicalAttention(size, config.scales, aux=config.aux))
