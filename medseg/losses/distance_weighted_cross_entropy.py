"""Cross entropy that weighs the narrow gaps between objects most: U-Net's border map.

Formula: -(w_k + w0 exp(-(d1 + d2)^2 / (2 sigma^2))) t_k ln p_k, d1 and d2 the distances of background to the two nearest objects
Paper: Ronneberger et al. 2015, U-Net, MICCAI
Equation: 6 of Taghanaki et al. 2021, where the map is added to the loss, and so has no slope: it is a weight
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._maps import between_objects
from medseg.losses._options import Options, Positive, Weight
from medseg.losses._voxels import Balance, answers, balance, each_voxel


class Config(Options):
    """Options of the loss.

    Args:
        w0: weight of a voxel between two objects that touch.
        sigma: how wide a gap still counts, in mm where the context knows the spacing and in voxels otherwise.
    """

    w0: Weight = 10.0
    sigma: Positive = 5.0


class DistanceWeightedCrossEntropy(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels). Without two objects it is `cross_entropy`.

    Objects are connected parts of a class; voxels inside them have their class weight w_k alone.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        alike = Balance(torch.ones_like(level.weights), torch.ones_like(level.weights))
        gaps = self.config.w0 * between_objects(level, self.config.sigma)
        losses = each_voxel(level, torch.neg, balance(level)) + gaps * each_voxel(level, torch.neg, alike)
        return losses.sum() / answers(level)


build = DistanceWeightedCrossEntropy
