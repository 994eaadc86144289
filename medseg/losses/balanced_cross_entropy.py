"""Balanced cross entropy: what is rare in an image weighs as much as what is frequent.

Formula: -(beta t ln p + (1 - beta) (1 - t) ln(1 - p)), beta = share of background
Paper: Xie and Tu 2015, Holistically-nested edge detection, ICCV
Equation: 5 of Taghanaki et al. 2021
"""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options, Share
from medseg.losses._voxels import answers, log_sums


class Config(Options):
    """Options of the loss.

    Args:
        beta: weight of structures, 0 to 1; background weighs `1 - beta`. None takes the share of background in each sample
            (with "sigmoid", in each channel of it), as the paper does.
    """

    beta: Share | None = None


class BalancedCrossEntropy(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels). With "softmax" each voxel gives the term of its true class."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts, or where a sample has one side only and `beta` is None."""
        inside, outside = log_sums(level, two_sided=not level.exclusive)
        beta = self._beta(level)
        if level.exclusive:
            weights = torch.cat([1 - beta, beta.expand(-1, inside.shape[1] - 1)], 1)
            sums = weights * inside
        else:
            sums = beta * inside + (1 - beta) * outside
        return -(sums * level.weights).sum() / answers(level)

    def _beta(self, level: Level) -> Tensor:
        """Weight of structures `(B, 1)`, with sigmoid `(B, K)`."""
        structures = level.true[:, 1:].sum(1, keepdim=True) if level.exclusive else level.true
        if self.config.beta is not None:
            return torch.full_like(structures, self.config.beta)
        return 1 - structures / level.sizes.clamp(min=1)


build = BalancedCrossEntropy
