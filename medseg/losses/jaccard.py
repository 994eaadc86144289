"""Soft Jaccard loss (intersection over union).

Formula: 1 - <t, p> / (|t| + |p| - <t, p>)
Paper: Rahman and Wang 2016, Optimizing intersection-over-union in deep neural networks, ISVC
Equation: 9 of Taghanaki et al. 2021, which gives the coefficient
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions
from medseg.losses._regions import class_mean, ratio, soft_counts


class Config(OverlapOptions):
    """Options of the loss."""


class Jaccard(Loss[Config]):
    """Mean over samples and classes. It is D / (2 - D) of the Dice coefficient D, and never above it."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure neither true nor predicted, close to 1 for an invented one."""
        both, predicted, true = soft_counts(level, self.config)
        smooth = self.config.smooth
        return class_mean(1 - ratio(both + smooth, predicted + true - both + smooth), level, self.config)


build = Jaccard
