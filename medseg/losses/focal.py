"""Focal loss: cross entropy in which voxels that are right already weigh little.

Formula: -(alpha (1 - p)^gamma t ln p + (1 - alpha) p^gamma (1 - t) ln(1 - p))
Paper: Lin et al. 2017, Focal loss for dense object detection, ICCV
Equation: 5; 7 of Taghanaki et al. 2021
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options, Share, Weight
from medseg.losses._voxels import answers, balance, each_voxel, focal


class Config(Options):
    """Options of the loss.

    Args:
        alpha: weight of structures, 0 to 1; background weighs `1 - alpha`. None weighs both alike, with 1.
        gamma: how much weight right voxels lose. With 0 this is `balanced_cross_entropy` with `beta = alpha`.
    """

    alpha: Share | None = 0.25
    gamma: Weight = 2.0


class Focal(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels).

    With "softmax" each voxel gives the term of its true class, which for two classes is the same formula.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        alpha = self.config.alpha
        weights = balance(level) if alpha is None else balance(level, alpha, 1 - alpha)
        costs = each_voxel(level, lambda log_right: focal(log_right, self.config.gamma), weights)
        return costs.sum() / answers(level)


build = Focal
