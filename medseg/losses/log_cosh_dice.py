"""Log-cosh Dice loss: the Dice loss, smooth like a square where it is nearly 0.

Formula: ln cosh(1 - D), D the Dice coefficient, mean over samples and classes
Paper: Jadon 2020, A survey of loss functions for semantic segmentation, CIBCB
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions
from medseg.losses._regions import class_mean, dice, soft_counts


class Config(OverlapOptions):
    """Options of the loss."""


class LogCoshDice(Loss[Config]):
    """Of the mean Dice loss over samples and classes; at most ln cosh 1 = .434."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for structures neither true nor predicted."""
        counts = soft_counts(level, self.config)
        return class_mean(1 - dice(counts, self.config.smooth), level, self.config).cosh().log()


build = LogCoshDice
