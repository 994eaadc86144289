"""ICNet: the deep trunk works at a quarter of the resolution, its first layers at a half, three convolutions at all of it.

Family: real-time
Paper: Zhao, Qi, Shen, Shi, Jia 2018, ICNet for real-time semantic segmentation on high-resolution images, arXiv:1704.08545
Without: strategy=fsdp (layers of the trunk run one by one)

Presets:
    resnet50: a whole ResNet-50: 26,120,736 parameters for 3 channels and 19 classes in 2D, with the auxiliary scores 26,125,600.
    half: half its channels, a stem of three convolutions, the coarsest map taken to 256 channels: the compressed
        network (4.3), 6,699,968.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Trunk, resnet
from medseg.models._blocks import NormName, Output, Positive, Width
from medseg.models._convs import unit
from medseg.models._resizing import mean_to, resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of an ICNet.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        deep_stem: three 3x3 convolutions in place of the 7x7, as in the authors' code.
        bins: elements an axis of the grids whose means are added to the coarsest map.
        squeeze: channels that the coarsest map is then taken to; none for as it is.
        channels: of the fused maps; the convolutions of the whole image have a quarter, a quarter and a half.
        norm: after each convolution but those of the scores.
        aux: in training also the scores of strides 8 and 16, before each fusion: the paper's label guidance.
    """

    depth: ResNetDepth = 50
    width: Width = 1.0
    deep_stem: bool = False
    bins: tuple[Positive, ...] = (1, 2, 3, 6)
    squeeze: Positive | None = None
    channels: Annotated[int, Field(ge=4)] = 128
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {
    "resnet50": Config(),
    "half": Config(width=0.5, deep_stem=True, squeeze=256),
    "tiny": Config(depth=10, width=1 / 16, bins=(1, 2), squeeze=16, channels=16),
}


class Fusion(nn.Module):
    """Cascade feature fusion (figure 3): a coarse map, doubled, by a dilated convolution; a finer one by a 1x1; their sum."""

    def __init__(self, dims: int, coarse: int, fine: int, channels: int, norm: NormName) -> None:
        super().__init__()
        self.coarse = unit(dims, coarse, channels, dilation=2, norm=norm, act=None)
        self.fine = unit(dims, fine, channels, 1, norm=norm, act=None)

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """The fused map, and the coarse one's share in it, which label guidance scores."""
        share = self.coarse(resize_like(coarse, fine))
        return (share + self.fine(fine)).relu(), share


class SummedPyramid(nn.Module):
    """The map and its means over grids of several sizes, summed: pyramid pooling without weights (section 3.1)."""

    def __init__(self, bins: tuple[int, ...]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        means = (resize_like(mean_to(x, bins), x) for bins in self.bins)
        return sum(means, x)


class ICNet(nn.Module):
    """The network of given parts.

    Args:
        trunk: of stride 8. To the first block of its third stage (conv3_1) it sees half the resolution, from there a quarter.
        shrink: to half the size.
        context: on the coarsest map.
        whole: of the whole image, to stride 8.
        fusions: of the maps of strides 32 and 16, and of 16 and 8.
        scores: of the last fused map, and where training has more outputs, of the coarse shares, finest first.
    """

    def __init__(
        self,
        trunk: Trunk,
        shrink: nn.Module,
        context: nn.Module,
        whole: nn.Module,
        fusions: list[Fusion],
        scores: list[nn.Module],
    ) -> None:
        super().__init__()
        self.trunk, self.shrink, self.context, self.whole = trunk, shrink, context, whole
        self.fusions = nn.ModuleList(fusions)
        self.scores, *guides = scores
        self.guides = nn.ModuleList(guides)

    def forward(self, x: Tensor) -> Tensor | Output:
        stem, second, third, *deep = self.trunk.stages
        first, *others = third.children()
        half = first(second(stem(self.shrink(x))))
        coarse = self.shrink(half)
        for part in (*others, *deep):
            coarse = part(coarse)
        fused, coarser = self.fusions[0](self.context(coarse), half)
        fused, finer = self.fusions[1](fused, self.whole(x))
        logits = resize_like(self.scores(fused), x)
        if not self.training or not self.guides:
            return logits
        guided = zip(self.guides, (finer, coarser), strict=True)
        return Output(logits, tuple(guide(share) for guide, share in guided))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Three resolutions, two fusions, scores without biases."""
    dims, norm, channels = spatial_dims, config.norm, config.channels
    depth, width = config.depth, config.width
    trunk = resnet(dims, in_channels, depth, width=width, norm=norm, output_stride=8, deep_stem=config.deep_stem)
    *_, side, _, last = trunk.channels
    context = nn.Sequential(SummedPyramid(config.bins))
    if config.squeeze:
        context.append(unit(dims, last, config.squeeze, 1, norm=norm))
    whole = nn.Sequential(
        unit(dims, in_channels, channels // 4, 3, 2, norm=norm),
        unit(dims, channels // 4, channels // 4, 3, 2, norm=norm),
        unit(dims, channels // 4, channels // 2, 3, 2, norm=norm),
    )
    fusions = [
        Fusion(dims, config.squeeze or last, side, channels, norm),
        Fusion(dims, channels, channels // 2, channels, norm),
    ]
    scores: list[nn.Module] = [
        _blocks.conv(dims, channels, out_channels, 1, bias=False) for _ in range(3 if config.aux else 1)
    ]
    return _blocks.initialise(ICNet(trunk, _blocks.mean_pool(dims), context, whole, fusions, scores))
