"""Tversky loss: Dice with separate prices for invented and missed voxels.

Formula: 1 - <t, p> / (<t, p> + beta <1 - t, p> + (1 - beta) <t, 1 - p>)
Paper: Salehi et al. 2017, Tversky loss function for image segmentation, MLMI
Equation: 11 of Taghanaki et al. 2021, where the opening brackets of the denominator are lost
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Share
from medseg.losses._regions import class_mean, soft_counts, tversky


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        beta: price of an invented voxel, 0 to 1; a missed one costs `1 - beta`. Below .5 recall is favoured; .5 is Dice. So the
            review calls it; in the paper it is alpha, and beta the price of a missed one.
    """

    beta: Share = 0.3


class Tversky(Loss[Config]):
    """Mean over samples and classes."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure neither true nor predicted, close to 1 for an invented one."""
        index = tversky(soft_counts(level, self.config), self.config.beta, self.config.smooth)
        return class_mean(1 - index, level, self.config)


build = Tversky
