"""Tversky loss: Dice with separate prices for invented and missed voxels.

Source: Salehi et al., Tversky loss function for image segmentation, MLMI 2017; Taghanaki et al. 2021, eq. 11, where the
opening brackets of the denominator are lost.
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Level, Loss, OverlapOptions, Share
from medseg.losses._terms import class_mean, ratio, soft_counts


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        beta: price of an invented voxel, 0 to 1; a missed one costs `1 - beta`. Below .5 recall is favoured; .5 is Dice.
    """

    beta: Share = 0.3


class Tversky(Loss[Config]):
    """`1 - <p, ph> / (<p, ph> + beta <1 - p, ph> + (1 - beta) <p, 1 - ph>)` of each sample and class, then the mean."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure neither true nor predicted, close to 1 for an invented one."""
        beta, smooth = self.config.beta, self.config.smooth
        both, predicted, true = soft_counts(level, self.config)
        index = ratio(both + smooth, both + beta * (predicted - both) + (1 - beta) * (true - both) + smooth)
        return class_mean(1 - index, level, self.config)


def build(config: Config) -> Tversky:
    """Make the loss."""
    return Tversky(config)
