"""Boundary loss: the mean signed distance of what is predicted to the true boundary.

Formula: alpha GD + (1 - alpha) 1/N sum phi p, phi the distance to the true boundary, negative inside, GD generalised Dice
Paper: Kervadec et al. 2019, Boundary loss for highly unbalanced segmentation, MIDL
Equation: 16 to 18 of Taghanaki et al. 2021, where the sum over voxels is lost
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._maps import to_boundary
from medseg.losses._options import OverlapOptions, Weight
from medseg.losses._regions import generalised_dice, structures, voxel_mean
from medseg.losses._schedule import ScheduledShare, at


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        alpha: share of the generalised Dice loss. The paper lets it fall while training: `{from: 1, to: 0.01}`. With 0 there
            is none, and another loss should stand beside this one: alone it finds its way too late.
        batch, smooth: of generalised Dice.
    """

    alpha: ScheduledShare = 0.0
    smooth: Weight = 0.0


class Boundary(Loss[Config]):
    """Mean over voxels and classes, in mm where the context knows the spacing and in voxels otherwise.

    Distances lead to the nearest voxel on the other side, so that phi is at least one step on either side. A structure
    without a boundary (absent, or filling the patch) has phi 0. The minimum is below 0: the truth's own mean of phi.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        p, truth = structures(level, self.config)
        mask = truth > 0.5
        distance = to_boundary(mask, level)
        phi = distance.where(~mask, -distance)
        loss = voxel_mean(phi * p, level, self.config)
        alpha = at(self.config.alpha, level.context.progress)
        if alpha:
            loss = alpha * (1 - generalised_dice(level, self.config)).mean() + (1 - alpha) * loss
        return loss


build = Boundary
