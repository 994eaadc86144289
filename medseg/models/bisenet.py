"""BiSeNet: a shallow path for places and a deep one for context, fused at stride 8.

Family: real-time
Paper: Yu, Wang, Peng, Gao, Yu, Sang 2018, BiSeNet: Bilateral segmentation network for real-time semantic segmentation,
    arXiv:1808.00897

Presets:
    resnet18: ResNet-18, the widths of the authors' code: 12,894,163 parameters for 3 channels and 19 classes in 2D. In the paper's
        measure, MiB of fp32 (its ResNet-18 has 42.7), these are 49.2; the paper has 49.0.
    xception39: the lighter trunk: 1,546,579, which are 5.9 MiB; the paper has 5.8.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._attention import Gated
from medseg.models._backbones import Trunk, resnet, xception39
from medseg.models._blocks import NormName, Output, Width
from medseg.models._context import ImagePooling
from medseg.models._convs import Residual, unit
from medseg.models._resizing import resize_like
from medseg.models._segmenter import with_auxiliary
from medseg.settings import Settings


class Config(Settings):
    """Options of a BiSeNet.

    Args:
        trunk: of the context path.
        width: of the trunk, 1 for the paper's.
        channels: of each path's end; the fused map has twice as many.
        norm: after each convolution but those of the fusion's weights and of the scores.
        aux: in training also the scores of the context path at strides 8 and 16.
    """

    trunk: Literal["resnet10", "resnet18", "resnet34", "xception39"] = "resnet18"
    width: Width = 1.0
    channels: Annotated[int, Field(ge=2)] = 128
    norm: NormName = "batch"
    aux: bool = False


PRESETS = {
    "resnet18": Config(),
    "xception39": Config(trunk="xception39"),
    "tiny": Config(trunk="resnet10", width=5 / 64, channels=8),
}


class ContextPath(nn.Module):
    """A trunk and the way back to its maps' finer sizes (figure 2 a): the maps of stride 16 and 32, refined, finest first."""

    def __init__(self, dims: int, trunk: Trunk, channels: int, norm: NormName) -> None:
        super().__init__()
        *_, side, last = trunk.channels
        self.trunk = trunk
        self.image = ImagePooling(dims, last, channels, norm=norm)
        self.weighed = nn.ModuleList([refinement(dims, inputs, channels, norm) for inputs in (last, side)])
        self.smooth = nn.ModuleList([unit(dims, channels, channels, norm=norm) for _ in range(2)])

    def forward(self, x: Tensor, finest: Tensor) -> tuple[Tensor, Tensor]:
        """Args: the image, and a map of the size of the finer answer."""
        *_, side, last = self.trunk(x)
        coarse = self.smooth[0](resize_like(self.weighed[0](last) + self.image(last), side))
        fine = self.smooth[1](resize_like(self.weighed[1](side) + coarse, finest))
        return fine, coarse


def refinement(dims: int, inputs: int, outputs: int, norm: NormName) -> nn.Sequential:
    """Attention refinement (figure 2 b): a 3x3 unit, whose channels are weighted by what their means say."""
    weights = unit(dims, outputs, outputs, 1, norm=norm, act=nn.Sigmoid)
    return nn.Sequential(unit(dims, inputs, outputs, norm=norm), Gated(weights))


def fusion(dims: int, channels: int, norm: NormName) -> nn.Sequential:
    """Feature fusion (figure 2 c): a 1x1 unit of both paths, and the same weighted by what its means say, added."""
    weights = (_blocks.conv(dims, channels, channels, 1, bias=False) for _ in range(2))
    gated = Gated(next(weights), nn.ReLU(), next(weights), nn.Sigmoid())
    return nn.Sequential(unit(dims, channels, channels, 1, norm=norm), Residual(gated))


class BiSeNet(nn.Module):
    """The two paths, the fusion, and scores: of the fused map and, where training has more outputs, of the context's two."""

    def __init__(self, spatial: nn.Module, context: ContextPath, fuse: nn.Module, scores: list[nn.Module]) -> None:
        super().__init__()
        self.spatial, self.context, self.fuse = spatial, context, fuse
        self.scores, *auxiliary = scores
        self.auxiliary = nn.ModuleList(auxiliary)

    def forward(self, x: Tensor) -> Tensor | Output:
        places = self.spatial(x)
        contexts = self.context(x, places)
        logits = resize_like(self.scores(self.fuse(torch.cat((places, contexts[0]), dim=1))), x)
        return with_auxiliary(logits, self.auxiliary, contexts)


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Three strided units and one of 1x1 beside a trunk with its refinements; the fusion; scores."""
    dims, norm, channels = spatial_dims, config.norm, config.channels
    half = channels // 2
    if config.trunk == "xception39":
        trunk = xception39(dims, in_channels, width=config.width, norm=norm)
    else:
        trunk = resnet(dims, in_channels, int(config.trunk.removeprefix("resnet")), width=config.width, norm=norm)
    spatial = nn.Sequential(
        unit(dims, in_channels, half, 7, 2, norm=norm),
        unit(dims, half, half, 3, 2, norm=norm),
        unit(dims, half, half, 3, 2, norm=norm),
        unit(dims, half, channels, 1, norm=norm),
    )

    def scores(inputs: int, width: int) -> nn.Module:
        return nn.Sequential(unit(dims, inputs, width, norm=norm), _blocks.conv(dims, width, out_channels, 1))

    heads = [scores(2 * channels, half), *(scores(channels, 2 * channels) for _ in range(2 * config.aux))]
    context = ContextPath(dims, trunk, channels, norm)
    return _blocks.initialise(BiSeNet(spatial, context, fusion(dims, 2 * channels, norm), heads))
