"""U-Net++: between encoder and decoder a triangle of stages, each of which sees all earlier ones of its level.

Family: u-shape
Paper: Zhou, Siddiquee, Tajbakhsh, Liang 2018, UNet++: a nested U-Net architecture for medical image segmentation,
    arXiv:1807.10165

Presets:
    paper: figure 1a and table 1, 32 to 512 channels, deeply supervised: 9,042,276 parameters for 3 channels and 1 class in 2D.
    tiny: the same topology with few channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from medseg.models import _blocks
from medseg.models._blocks import NormName, Output, Positive
from medseg.models._ushape import Levels, convs


class Config(Levels):
    """Options of a U-Net++: levels, and

    Args:
        deep_supervision: in training, logits of the shallower Us too, all of the image's size; what is predicted is the mean of
            all (the paper's accurate mode), else the deepest U's answer alone.
        pruned: with deep supervision, how many steps down are computed when predicting, 0 for all: the paper's fast mode, L1 to L4.
    """

    widths: tuple[Positive, ...] = (32, 64, 128, 256, 512)
    norm: NormName = "none"
    deep_supervision: bool = True
    pruned: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_pruned(self) -> Self:
        most = len(self.strides) if self.deep_supervision else 0
        if self.pruned > most:
            raise ValueError(f"pruned: expected {most} at most, to fit strides and deep_supervision; got {self.pruned}")
        return self


PRESETS = {"paper": Config(), "tiny": Config(widths=(6, 7, 8), strides=(2, 2))}


class NestedUNet(nn.Module):
    """The network of given parts.

    Args:
        encoder: stages from the finest to the coarsest; each coarsens what it gets.
        ups: of step j and level i (`ups[j][i]`), what doubles the stage below and before it.
        stages: of step j and level i, the stage X(i, j + 1) of the paper.
        heads: what makes logits of X(0, j): of each, or of the last one alone.
        pruned: steps down that are computed when predicting, 0 for all.
    """

    def __init__(
        self,
        encoder: Sequence[nn.Module],
        ups: Sequence[Sequence[nn.Module]],
        stages: Sequence[Sequence[nn.Module]],
        heads: Sequence[nn.Module],
        pruned: int,
    ) -> None:
        super().__init__()
        self.encoder, self.heads, self.pruned = nn.ModuleList(encoder), nn.ModuleList(heads), pruned
        self.ups, self.stages = (nn.ModuleList(map(nn.ModuleList, grid)) for grid in (ups, stages))

    def forward(self, x: Tensor) -> Tensor | Output:
        steps = len(self.ups) if self.training or not self.pruned else self.pruned
        levels = []  # of each level the maps so far
        for stage in self.encoder[: steps + 1]:
            x = stage(x)
            levels.append([x])
        for step in range(steps):
            for level in range(steps - step):
                up, stage = self.ups[step][level], self.stages[step][level]  # type: ignore[index]
                levels[level].append(stage(_blocks.join(torch.cat(levels[level], dim=1), up(levels[level + 1][step]))))
        finest = levels[0][1:][-len(self.heads) :]
        *shallower, logits = (head(map_) for head, map_ in zip(self.heads, finest, strict=False))
        if self.training and shallower:
            return Output(logits, tuple(shallower))
        return sum(shallower, logits) / (1 + len(shallower))


def build(config: Config, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A U-Net++ of the given levels."""
    dims, widths, depth = spatial_dims, config.widths, len(config.strides)

    def stage(inputs: int, outputs: int) -> nn.Sequential:
        return convs(dims, inputs, outputs, outputs, kernel=config.kernel, norm=config.norm)

    encoder = [stage(in_channels, widths[0])]
    for fine, coarse, stride in zip(widths, widths[1:], config.strides, strict=False):
        encoder.append(nn.Sequential(_blocks.max_pool(dims, stride), stage(fine, coarse)))
    ups, stages = [], []
    for step in range(depth):
        below = range(depth - step)
        ups.append([_blocks.transposed(dims, widths[n + 1], widths[n], config.strides[n]) for n in below])
        stages.append([stage((step + 2) * widths[n], widths[n]) for n in below])
    heads = [_blocks.conv(dims, widths[0], out_channels, 1) for _ in range(depth if config.deep_supervision else 1)]
    return _blocks.initialise(NestedUNet(encoder, ups, stages, heads, config.pruned))
