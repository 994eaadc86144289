"""Attention to scale: one network sees the image in several sizes, and each voxel weighs what it says of each.

Family: attention
Paper: Chen, Yang, Wang, Xu, Yuille 2016, Attention to scale: Scale-aware semantic image segmentation, arXiv:1511.03339

Presets:
    vgg16: DeepLab's VGG16 of stride 8 on sizes of 1, 0.75 and 0.5: 34,663,256 parameters for 3 channels and 21 classes in 2D.
    two: sizes of 1 and 0.5.
    tiny: one narrow convolution a stage, two sizes.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import Output, Positive
from medseg.models._convs import unit
from medseg.models._large_fov import Options, large_fov
from medseg.models._pyramids import Join
from medseg.models._resizing import resize_by, resize_like
from medseg.models._segmenter import Pick


class Config(Options):
    """Options of an attention to scale, besides those of `_large_fov.Options`.

    Args:
        scales: sizes of the image, against its own, greatest first.
        channels: of the attention.
        aux: in training also the scores of each size alone.
    """

    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0, 0.75, 0.5)
    channels: Positive = 512
    aux: bool = False


PRESETS = {
    "vgg16": Config(),
    "two": Config(scales=(1.0, 0.5)),
    "tiny": Config(depth=8, width=1 / 16, hidden=8, rate=2, scales=(1.0, 0.5), channels=8, dropout=0.1),
}


class ScaleAttention(nn.Module):
    """Maps of each size by the same weights, their scores, and what weighs the sizes at each voxel (figure 2 b)."""

    def __init__(
        self, maps: nn.Module, scores: nn.Module, attention: nn.Module, scales: tuple[float, ...], *, aux: bool
    ) -> None:
        super().__init__()
        self.maps, self.scores, self.attention = maps, scores, attention
        self.scales, self.aux = scales, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        maps = [self.maps(resize_by(x, scale)) for scale in self.scales]
        scores = [self.scores(map_) for map_ in maps]
        shares = self.attention(maps).softmax(1).split(1, dim=1)  # equations 1 and 2: (B, 1, *spatial), one a size
        weighed = [share * resize_like(score, maps[0]) for share, score in zip(shares, scores, strict=True)]
        logits = resize_like(sum(weighed[1:], weighed[0]), x)
        return Output(logits, tuple(scores)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """DeepLab's VGG, shared by all sizes; scores; two convolutions that weigh the sizes."""
    dims, hidden, count = spatial_dims, config.hidden, len(config.scales)
    trunk, view = large_fov(dims, in_channels, config)
    maps = nn.Sequential(trunk, Pick(-1), view)
    attention = nn.Sequential(
        Join(), unit(dims, count * hidden, config.channels, norm="none"), _blocks.conv(dims, config.channels, count, 1)
    )
    scores = _blocks.conv(dims, hidden, out_channels, 1)
    return _blocks.initialise(ScaleAttention(maps, scores, attention, config.scales, aux=config.aux))
