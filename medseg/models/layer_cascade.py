"""Layer cascade: voxels that an early stage is sure of are settled there, and later stages see the others alone.

Family: real-time
Paper: Li, Liu, Luo, Loy, Tang 2017, Not all pixels are equal: Difficulty-aware semantic segmentation via deep layer cascade,
    arXiv:1704.01344

Presets:
    resnet101: three exits on a ResNet-101 of stride 8, where the paper has an Inception-ResNet-v2: 54,907,135 parameters for 3
        channels and 21 classes in 2D.
    resnet50: the smaller trunk.
    tiny: ResNet-10, narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._backbones import ResNetDepth, Stages, resnet
from medseg.models._blocks import NormName, Output, Share, Width
from medseg.models._convs import unit
from medseg.models._resizing import resize_like
from medseg.settings import Settings


class Config(Settings):
    """Options of a layer cascade.

    Args:
        depth: layers of the ResNet.
        width: of the trunk, 1 for 64 channels after its stem.
        certainty: probability of the likeliest class from which a voxel is settled.
        norm: after each convolution but those of the scores.
        dropout: share of channels dropped before the scores, 0 to 1.
        aux: in training also the scores of the first exits, everywhere: without, they learn only from what they settle.
    """

    depth: ResNetDepth = 101
    width: Width = 1.0
    certainty: Annotated[float, Field(gt=0, le=1)] = 0.985
    norm: NormName = "batch"
    dropout: Share = 0.1
    aux: bool = True


PRESETS = {"resnet101": Config(), "resnet50": Config(depth=50), "tiny": Config(depth=10, width=1 / 16)}
EXITS = 3  # the last stages of the trunk, all of stride 8


class LayerCascade(nn.Module):
    """The stages of a trunk, and an exit after each of the last ones (figure 2).

    Settled voxels are zeros to the later stages (region convolution, 3.2). All are computed nevertheless: what is saved is
    what a sparse kernel would save.
    """

    def __init__(self, stages: Iterable[nn.Module], exits: Sequence[nn.Module], certainty: float, *, aux: bool) -> None:
        super().__init__()
        self.stages, self.exits = Stages(stages), nn.ModuleList(exits)
        self.certainty, self.aux = certainty, aux

    def forward(self, x: Tensor) -> Tensor | Output:
        map_, hard = x, None
        scores: list[Tensor] = []
        for number, stage in enumerate(self.stages, start=EXITS - len(self.stages)):
            map_ = stage(map_ if hard is None else map_ * hard)
            if number < 0:
                continue
            found = self.exits[number](map_)
            scores.append(found if hard is None else torch.where(hard, found, scores[-1]))
            hard = scores[-1].softmax(1).amax(1, keepdim=True) < self.certainty
        logits = resize_like(scores.pop(), x)
        return Output(logits, tuple(scores)) if self.aux and self.training else logits


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A dilated ResNet and its exits: a 3x3 unit and scores each."""
    dims, norm = spatial_dims, config.norm
    trunk = resnet(dims, in_channels, config.depth, width=config.width, norm=norm, output_stride=8)
    exits: list[nn.Module] = [
        nn.Sequential(
            unit(dims, channels, channels // 4, norm=norm),
            _blocks.dropout(dims, config.dropout),
            _blocks.conv(dims, channels // 4, out_channels, 1),
        )
        for channels in trunk.channels[-EXITS:]
    ]
    return _blocks.initialise(LayerCascade(trunk.stages, exits, config.certainty, aux=config.aux))
