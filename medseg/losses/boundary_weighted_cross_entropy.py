"""Cross entropy that weighs voxels at a boundary more than those inside.

Formula: -w t_k ln p_k, w = boundary for voxels at a boundary, interior for all others
Paper: Roy et al. 2017, ReLayNet, Biomedical Optics Express (more weight at boundaries)
Equation: none in Taghanaki et al. 2021; the weights 1 and .1 are those of lecture notes. Not the boundary loss of its eq. 18
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._maps import beside_boundary, to_other_side
from medseg.losses._options import Options, Weight
from medseg.losses._voxels import answers, balance, each_voxel


class Config(Options):
    """Options of the loss.

    Args:
        boundary, interior: weights.
        width_mm: voxels at most so far from the nearest one of another class are at a boundary, too (in voxels where the
            context knows no spacing). Those beside one always are.
    """

    boundary: Weight = 1.0
    interior: Weight = 0.1
    width_mm: Weight = 0.0


class BoundaryWeightedCrossEntropy(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels)."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts, and all is interior where no class has a boundary."""
        config, near = self.config, beside_boundary(level)
        if config.width_mm:
            distance = to_other_side(level)
            near = near.logical_or((distance > 0) & (distance <= config.width_mm)).to(near)
        weights = config.interior + (config.boundary - config.interior) * near
        return (each_voxel(level, torch.neg, balance(level)) * weights).sum() / answers(level)


build = BoundaryWeightedCrossEntropy
