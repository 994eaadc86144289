"""Soft Dice loss.

Formula: 1 - 2 <t, p> / (|t| + |p|)
Paper: Milletari et al. 2016, V-Net, 3DV (squared denominator)
Equation: 10 of Taghanaki et al. 2021, printed without "1 -": it is the coefficient, and the loss is 1 minus it
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions
from medseg.losses._regions import class_mean, dice, soft_counts


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        squared: sum squares in the denominator, as V-Net does.
    """

    squared: bool = False


class Dice(Loss[Config]):
    """Mean over samples and classes."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure neither true nor predicted, close to 1 for an invented one."""
        counts = soft_counts(level, self.config, squared=self.config.squared)
        return class_mean(1 - dice(counts, self.config.smooth), level, self.config)


build = Dice
