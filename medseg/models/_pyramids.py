"""What becomes of a trunk's maps of several resolutions together. Each takes maps, finest first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models._resizing import resize_like


class Join(nn.Module):
    """All maps side by side, at the size of the finest."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat([resize_like(x, maps[0]) for x in maps], dim=1)


class FeaturePyramid(nn.Module):
    """Each map adds what the coarser ones found: lateral paths, sums from the coarsest to the finest, smoothing.

    Lin et al. 2017, Feature pyramid networks for object detection, arXiv:1612.03144, figure 3; steps up are linear here, of
    nearest neighbours there.

    Args:
        laterals: of as many of the coarsest maps, finest first, all to the same channels.
        smoothing: of the sums, finest first; sums beyond these, at the coarse end, stay as they are.
    """

    def __init__(self, laterals: Sequence[nn.Module], smoothing: Sequence[nn.Module]) -> None:
        super().__init__()
        self.laterals, self.smoothing = nn.ModuleList(laterals), nn.ModuleList(smoothing)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        used = maps[-len(self.laterals) :]
        sums = [lateral(x) for lateral, x in zip(self.laterals, used, strict=True)]
        for n in reversed(range(len(sums) - 1)):
            sums[n] = sums[n] + resize_like(sums[n + 1], sums[n])
        count = len(self.smoothing)
        return [smooth(x) for smooth, x in zip(self.smoothing, sums, strict=False)] + sums[count:]
