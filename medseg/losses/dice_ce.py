"""Soft Dice plus cross entropy: the default.

Source: Isensee et al., nnU-Net, Nature Methods 2021 (sum of the two, weights 1 and 1).
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Level, Loss, OverlapOptions, Weight
from medseg.losses._terms import class_mean, dice, log_loss, soft_counts


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
    """`dice_weight * (1 - mean Dice) + ce_weight * cross entropy`."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        config = self.config
        entropy = log_loss(level, reduction="weighted_mean")
        coefficient = dice(soft_counts(level, config, squared=config.squared), config.smooth)
        return config.dice_weight * class_mean(1 - coefficient, level, config) + config.ce_weight * entropy


def build(config: Config) -> DiceCE:
    """Make the loss."""
    return DiceCE(config)
