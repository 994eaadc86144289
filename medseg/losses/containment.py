"""Containment and exclusion: a tumour lies inside its organ, two organs lie apart. It needs no truth.

Formula: 1/N sum p_inner (1 - p_outer), 1/N sum p_a p_b; with softmax between a voxel and its neighbours
Paper: BenTaieb and Hamarneh 2016, Topology aware fully convolutional networks for histology gland segmentation, MICCAI
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options

Pairs = tuple[tuple[int, int], ...]


class Config(Options):
    """Options of the loss.

    Args:
        inside: pairs of channels of which the first lies inside the second. None puts each structure into the one before it,
            as nested labels are numbered.
        apart: pairs of channels that never meet.
    """

    inside: Pairs | None = None
    apart: Pairs = ()


class Containment(Loss[Config]):
    """Sum over pairs of the mean over voxels. Every voxel counts, those ignored too.

    With "sigmoid", labels overlap: what lies inside has both labels, and what lies apart has not both. With "softmax" a voxel
    has one label: what lies inside touches nothing but its surroundings, and what lies apart does not touch.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where no rule is broken, and where there is none: one structure lies in nothing."""
        total = 0 * level.p.sum()  # has a slope, be it of nothing
        for inner, outer in self._inside(level):
            allowed = level.p[:, inner] + level.p[:, outer] if level.exclusive else level.p[:, outer]
            total = total + level.weights[inner] * self._meeting(level, level.p[:, inner], 1 - allowed)
        for a, b in self.config.apart:
            total = total + level.weights[a] * self._meeting(level, level.p[:, a], level.p[:, b])
        return total

    def _inside(self, level: Level) -> Pairs:
        channels, first = level.logits.shape[1], int(level.exclusive)
        inside = self.config.inside
        pairs = tuple((k + 1, k) for k in range(first, channels - 1)) if inside is None else inside
        if wrong := [k for pair in (*pairs, *self.config.apart) for k in pair if not 0 <= k < channels]:
            raise ConfigError(f"containment speaks of channel {wrong[0]}, but there are 0 to {channels - 1}")
        return pairs

    def _meeting(self, level: Level, a: Tensor, b: Tensor) -> Tensor:
        """How much of two channels `(B, *spatial)` meets, a share of all voxels or of all pairs of neighbours."""
        if not level.exclusive:
            return (a * b).mean()
        met = [
            a.narrow(axis, at, size) * b.narrow(axis, 1 - at, size)
            for axis in range(1, a.ndim)
            for at, size in ((0, a.shape[axis] - 1), (1, a.shape[axis] - 1))
        ]
        pairs = torch.cat([pair.flatten() for pair in met])
        return pairs.sum() / max(1, len(pairs))


build = Containment
