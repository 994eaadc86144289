"""Entropy of the prediction: the network should be sure of itself. It needs no truth.

Formula: -1/N sum_k p_k ln p_k; with sigmoid -(p ln p + (1 - p) ln(1 - p)) in each channel
Paper: Grandvalet and Bengio 2005, Semi-supervised learning by entropy minimization, NeurIPS
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options


class Config(Options):
    """Options of the loss."""


class Entropy(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels). Every voxel counts, those ignored too: they are what it is for."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for certain answers, at most ln K."""
        log_p = level.log_p
        losses = -level.p * log_p
        if not level.exclusive:
            losses = losses - (1 - level.p) * level.log_not_p
        total = (losses * level.by_channel(level.weights)).sum()
        return total / (losses[:, 0].numel() if level.exclusive else losses.numel())


build = Entropy
