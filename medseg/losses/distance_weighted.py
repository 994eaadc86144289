"""Cross entropy that weighs a voxel the more, the nearer it lies to a boundary.

Formula: -(1 + alpha exp(-d / decay)) t_k ln p_k, d the distance to the nearest voxel of another class
Paper: Caliva et al. 2019, Distance map loss penalty term for semantic segmentation, MIDL
Equation: none in Taghanaki et al. 2021; the paper inverts its distance maps, and the exponential is our way to do so
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._maps import to_other_side
from medseg.losses._options import Options, Positive, Weight
from medseg.losses._voxels import answers, balance, each_voxel


class Config(Options):
    """Options of the loss.

    Args:
        alpha: weight that a voxel at a boundary has beyond 1.
        decay: distance over which that weight falls to 1/e, in mm where the context knows the spacing and in voxels otherwise.
    """

    alpha: Weight = 1.0
    decay: Positive = 5.0


class DistanceWeighted(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels). Where no class has a boundary it is `cross_entropy`."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        distance = to_other_side(level)
        near = torch.exp(-distance / self.config.decay) * (distance > 0)
        losses = each_voxel(level, torch.neg, balance(level)) * (1 + self.config.alpha * near)
        return losses.sum() / answers(level)


build = DistanceWeighted
