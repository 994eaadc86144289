"""Generalised Dice loss: one ratio over all classes, each weighed by the inverse square of its size.

Formula: 1 - 2 sum_k w_k <t_k, p_k> / sum_k w_k (|t_k| + |p_k|), w_k = 1 / |t_k|^2
Paper: Sudre et al. 2017, Generalised Dice overlap, DLMIA
Equation: 17 of Taghanaki et al. 2021, where the fraction bars are lost
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Weight
from medseg.losses._regions import generalised_dice


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        include_background: as in the paper, background is one of the classes.
        smooth: 0 by default, because large structures have weights so small that a usual constant would drown them.
    """

    include_background: bool = True
    smooth: Weight = 0.0


class GeneralisedDice(Loss[Config]):
    """Mean over samples."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where no class is true."""
        return (1 - generalised_dice(level, self.config)).mean()


build = GeneralisedDice
