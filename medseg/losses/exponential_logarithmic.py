"""Exponential-logarithmic loss: powers of the logarithms of Dice and of probability, for structures of very unequal size.

Formula: dice_weight E_k[(-ln D_k)^gamma] + ce_weight E_x[w_l (-ln p_l(x))^gamma], w_l = sqrt(sum_k f_k / f_l)
Paper: Wong et al. 2018, 3D segmentation with exponential logarithmic loss for highly unbalanced object sizes, MICCAI
Equation: 12 to 14 of Taghanaki et al. 2021, which lost the class weight w_l and calls the coefficient D a loss
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Positive, Weight
from medseg.losses._regions import class_mean, dice, soft_counts
from medseg.losses._voxels import Balance, answers, balance, each_voxel, power, rarity


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        gamma_dice, gamma_ce: powers, over 0 to 10; the paper found .3 best for both.
        dice_weight, ce_weight: of the two terms. Background always counts in the second.
        smooth: the paper's epsilon.
    """

    gamma_dice: Annotated[float, Field(gt=0, le=10)] = 1.0
    gamma_ce: Annotated[float, Field(gt=0, le=10)] = 1.0
    dice_weight: Weight = 0.8
    ce_weight: Weight = 0.2
    smooth: Positive = 1.0


class ExponentialLogarithmic(Loss[Config]):
    """Means over samples and classes, and over voxels. The frequencies f are those of the batch."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        config = self.config
        surprise = -dice(soft_counts(level, config), config.smooth).log()
        region = class_mean(power(surprise, config.gamma_dice), level, config)
        rare = rarity(level, "inverse")
        weights = balance(level).times(Balance(rare.inside.sqrt(), rare.outside.sqrt()))
        voxels = each_voxel(level, lambda log_right: power(-log_right, config.gamma_ce), weights)
        return config.dice_weight * region + config.ce_weight * voxels.sum() / answers(level)


build = ExponentialLogarithmic
