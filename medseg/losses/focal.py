"""Focal loss: cross entropy in which voxels that are right already weigh little.

Source: Lin et al., Focal loss for dense object detection, ICCV 2017, eq. 5; Taghanaki et al. 2021, eq. 7.
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Level, Loss, Options, Share, Weight
from medseg.losses._terms import log_loss


class Config(Options):
    """Options of the loss.

    Args:
        alpha: weight of structures, 0 to 1; background weighs `1 - alpha`. None weighs both alike, with 1.
        gamma: how much weight right voxels lose. With 0 this is balanced cross entropy with `beta = alpha`.
    """

    alpha: Share | None = 0.25
    gamma: Weight = 2.0


class Focal(Loss[Config]):
    """`-(a (1 - ph)^g p ln ph + (1 - a) ph^g (1 - p) ln(1 - ph))`, mean over voxels (with "sigmoid", and channels).

    With "softmax" each voxel gives the term of its true class, which for two classes is the same formula.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        alpha = self.config.alpha
        positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        return log_loss(level, positive=positive, negative=negative, gamma=self.config.gamma)


def build(config: Config) -> Focal:
    """Make the loss."""
    return Focal(config)
