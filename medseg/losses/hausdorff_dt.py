"""Hausdorff loss by distance transforms: an error costs more the farther it lies from the boundaries.

Formula: 1/N sum (t - p)^2 (d_t^alpha + d_p^alpha) + dice_weight (1 - 2 <t, p> / (|t|^2 + |p|^2)), d the distance to a boundary
Paper: Karimi and Salcudean 2020, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI
Equation: 24 and 25 of Taghanaki et al. 2021
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._hausdorff import Config, composite
from medseg.losses._level import Level
from medseg.losses._maps import to_boundary
from medseg.losses._regions import structures


class HausdorffDT(Loss[Config]):
    """Mean over voxels and classes. A mask is where p is over .5; one without a boundary (empty or full) has distance 0."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        p, truth = structures(level, self.config)
        predicted, true = (to_boundary(values > 0.5, level) ** self.config.alpha for values in (p, truth))
        return composite((p - truth).square() * (predicted + true), level, self.config)


build = HausdorffDT
