"""Hausdorff loss by distance transforms: an error costs more the farther it lies from the boundaries.

Source: Karimi and Salcudean, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI 2020, eq. 8;
Taghanaki et al. 2021, eq. 24 and 25.
"""

from __future__ import annotations

from torch import Tensor

from medseg.distance import to_boundary_batch
from medseg.losses._common import Level, Loss, OverlapOptions, Weight
from medseg.losses._terms import class_mean, dice, soft_counts


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        alpha: power of the distances, which are in mm where the context knows the spacing and in voxels otherwise.
        dice_weight: weight of an added Dice loss with squared denominator (eq. 24), which steadies the start of training.
    """

    alpha: Weight = 2.0
    dice_weight: Weight = 0.0


class HausdorffDT(Loss[Config]):
    """`1/|W| sum (p - q)^2 (d_p^alpha + d_q^alpha)`, d being the distance to the boundary of a mask (p over .5)."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution. A mask without a boundary (empty or full) has distance 0 everywhere."""
        config = self.config
        p = level.keep(level.p)
        far = _distance(p.detach(), level, config) + _distance(level.truth, level, config)
        errors = ((p - level.truth).square() * far).flatten(2).sum(2) * (len(p) / level.voxels)
        loss = class_mean(errors, level, config)
        if config.dice_weight:
            overlap = dice(soft_counts(level, config, squared=True), config.smooth)
            loss = loss + config.dice_weight * class_mean(1 - overlap, level, config)
        return loss


def _distance(membership: Tensor, level: Level, config: Config) -> Tensor:
    """`d^alpha` of `(B, K, *spatial)`; a background that does not count is not measured."""
    mask = membership > 0.5
    first = int(level.exclusive and not config.include_background)
    mask[:, :first] = False
    return to_boundary_batch(mask, level.spacing_mm).to(membership) ** config.alpha


def build(config: Config) -> HausdorffDT:
    """Make the loss."""
    return HausdorffDT(config)
