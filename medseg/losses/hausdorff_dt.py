"""Hausdorff loss by distance transforms: an error costs more the farther it lies from the boundaries.

Formula: 1/N sum (t - p)^2 (d_t^alpha + d_p^alpha) + dice_weight (1 - 2 <t, p> / (|t|^2 + |p|^2)), d the distance to a boundary
Paper: Karimi and Salcudean 2020, Reducing the Hausdorff distance in medical image segmentation, IEEE TMI
Equation: 24 and 25 of Taghanaki et al. 2021
"""

from __future__ import annotations

from torch import Tensor

from medseg.distance import to_boundary_batch
from medseg.losses._common import Loss
from medseg.losses._hausdorff import Config, composite
from medseg.losses._level import Level
from medseg.losses._regions import first_structure


class HausdorffDT(Loss[Config]):
    """Mean over voxels and classes. A mask is where p is over .5; one without a boundary (empty or full) has distance 0."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        p = level.keep(level.p)
        far = self._distance(p.detach(), level) + self._distance(level.truth, level)
        return composite((p - level.truth).square() * far, level, self.config)

    def _distance(self, membership: Tensor, level: Level) -> Tensor:
        """`d^alpha` of `(B, K, *spatial)`; a background that does not count is not measured."""
        mask = membership > 0.5
        mask[:, : first_structure(level, self.config)] = False
        return to_boundary_batch(mask, level.spacing_mm).to(membership) ** self.config.alpha


def build(config: Config) -> HausdorffDT:
    """Make the loss."""
    return HausdorffDT(config)
