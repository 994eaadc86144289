"""Combo loss: balanced cross entropy and the Dice coefficient.

Source: Taghanaki et al., Combo loss, Computerized Medical Imaging and Graphics 2019; Taghanaki et al. 2021, eq. 31, where
the product `t ln p` is printed as a difference. The text there says that `alpha` scales Dice; the formula, followed here,
lets it scale cross entropy.
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Level, Loss, OverlapOptions, Share, Weight
from medseg.losses._terms import class_mean, class_weights, dice, soft_counts, two_sided_log_loss


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
    """`alpha CE - (1 - alpha) sum_k (2 <t, p> + S) / (|t| + |p| + S)`, CE being the mean over voxels and classes of
    `-(beta t ln p + (1 - beta) (1 - t) ln(1 - p))`.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution. Its minimum is not 0 but `-(1 - alpha) K` for K classes that count."""
        config = self.config
        losses = two_sided_log_loss(level, positive=config.beta, negative=1 - config.beta) / level.voxels
        cross_entropy = class_mean(losses[None], level, config)
        overlap = class_mean(dice(soft_counts(level, config), config.smooth), level, config)
        classes = (class_weights(level, config) > 0).sum()
        return config.alpha * cross_entropy - (1 - config.alpha) * classes * overlap


def build(config: Config) -> Combo:
    """Make the loss."""
    return Combo(config)
