"""Generalised Dice loss: one ratio over all classes, each weighed by the inverse square of its size.

Source: Sudre et al., Generalised Dice overlap, DLMIA 2017; Taghanaki et al. 2021, eq. 17, where the fraction bars are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Level, Loss, OverlapOptions, Weight
from medseg.losses._terms import class_weights, ratio, soft_counts


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        include_background: as in the paper, background is one of the classes.
        smooth: 0 by default, because large structures have weights so small that a usual constant would drown them.
    """

    include_background: bool = True
    smooth: Weight = 0.0


class GeneralisedDice(Loss[Config]):
    """`1 - 2 sum_k w_k <p_k, ph_k> / sum_k w_k (|p_k| + |ph_k|)` with `w_k = 1 / |p_k|^2`, mean over samples."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where no class is true."""
        both, predicted, true = soft_counts(level, self.config)
        weights = _inverse_squares(true, class_weights(level, self.config))
        above, below = (2 * weights * both).sum(1), (weights * (predicted + true)).sum(1)
        return (1 - ratio(above + self.config.smooth, below + self.config.smooth)).mean()


def _inverse_squares(true: Tensor, weights: Tensor) -> Tensor:
    """Weights `(B, K)`. A class absent from a sample, whose weight would be infinite, shares the largest one there."""
    present = true > 0
    inverse = torch.where(present & (weights > 0), true.clamp(min=1e-6) ** -2, 0)
    return torch.where(present, inverse, inverse.amax(1, keepdim=True)) * weights


def build(config: Config) -> GeneralisedDice:
    """Make the loss."""
    return GeneralisedDice(config)
