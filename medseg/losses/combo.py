"""Combo loss: balanced cross entropy and the Dice coefficient.

Formula: alpha CE - (1 - alpha) sum_k (2 <t, p> + smooth) / (|t| + |p| + smooth), CE = -(beta t ln p + (1 - beta) (1 - t) ln(1 - p))
Paper: Taghanaki et al. 2019, Combo loss, Computerized Medical Imaging and Graphics
Equation: 31 of Taghanaki et al. 2021, where the product t ln p is printed as a difference; the text there says that alpha scales
    Dice, the formula, followed here, lets it scale cross entropy
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Share, Weight
from medseg.losses._regions import class_mean, class_weights, dice, soft_counts
from medseg.losses._voxels import log_sums


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        alpha: share of cross entropy, 0 to 1; Dice has the rest.
        beta: price of a missed voxel, 0 to 1; an invented one costs `1 - beta`.
        smooth: S in the formula.
    """

    alpha: Share = 0.5
    beta: Share = 0.5
    smooth: Weight = 1.0


class Combo(Loss[Config]):
    """Mean of the cross entropy over voxels and classes, and of the sum over samples."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution. Its minimum is not 0 but `-(1 - alpha) K` for K classes that count."""
        config = self.config
        inside, outside = log_sums(level, two_sided=True)
        sums = (config.beta * inside + (1 - config.beta) * outside).sum(0, keepdim=True)
        cross_entropy = class_mean(-sums / level.voxels, level, config)
        overlap = class_mean(dice(soft_counts(level, config), config.smooth), level, config)
        classes = (class_weights(level, config) > 0).sum()
        return config.alpha * cross_entropy - (1 - config.alpha) * classes * overlap


build = Combo
