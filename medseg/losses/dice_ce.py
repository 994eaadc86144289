"""Soft Dice plus cross entropy: the default.

Formula: dice_weight (1 - D) + ce_weight CE, D the Dice coefficient
Paper: Isensee et al. 2021, nnU-Net, Nature Methods
Equation: none in Taghanaki et al. 2021; the sum of eq. 10 and 3
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Weight
from medseg.losses._regions import class_mean, dice, soft_counts
from medseg.losses._voxels import balance, log_loss


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        dice_weight: weight of the Dice term, in which background counts only with `include_background`.
        ce_weight: weight of the cross entropy, in which background always counts. With `class_weights` it is divided by
            the sum of weights, so that the balance of the two terms stays.
        squared: square the denominator of the Dice term.
    """

    dice_weight: Weight = 1.0
    ce_weight: Weight = 1.0
    squared: bool = False


class DiceCE(Loss[Config]):
    """Mean Dice loss over samples and classes, and mean cross entropy over voxels (with "sigmoid", and channels)."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        config = self.config
        entropy = log_loss(level, balance(level), "weighted_mean")
        coefficient = dice(soft_counts(level, config, squared=config.squared), config.smooth)
        return config.dice_weight * class_mean(1 - coefficient, level, config) + config.ce_weight * entropy


build = DiceCE
