"""Unified focal loss: focal cross entropy and focal Tversky with one delta and one gamma.

Formula: share F + (1 - share) R; F = -delta t ln p for structures, -(1 - delta) (1 - p)^gamma t ln p for background;
    R = (1 - T)^(1 - gamma) for structures, 1 - T for background; T = TP / (TP + delta FN + (1 - delta) FP)
Paper: Yeung et al. 2022, Unified focal loss, Computerized Medical Imaging and Graphics
Equation: none in Taghanaki et al. 2021; the asymmetric form, and the symmetric one with the exponents of the authors' code
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Share
from medseg.losses._regions import class_mean, soft_counts, tversky
from medseg.losses._voxels import answers, balance, each_voxel, focal, power


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        focal_share: share of the focal cross entropy, the paper's lambda.
        delta: weight of structures, and price of a missed voxel; background and invented ones have `1 - delta`.
        gamma: 0 is cross entropy and Tversky; larger spares background that is right already, and keeps structures steep.
        symmetric: treat background and structures alike.
        include_background: as in the paper, background is one of the regions. With "sigmoid" there is no such region.
    """

    focal_share: Share = 0.5
    delta: Share = 0.6
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.5
    symmetric: bool = False
    include_background: bool = True


class UnifiedFocal(Loss[Config]):
    """Means over voxels (with "sigmoid", and channels), and over samples and classes."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        share = self.config.focal_share
        return share * self._focal(level) + (1 - share) * self._region(level)

    def _focal(self, level: Level) -> Tensor:
        delta, gamma = self.config.delta, self.config.gamma
        spared = balance(level, delta if self.config.symmetric else 0.0, 1 - delta)
        losses = each_voxel(level, lambda log_right: focal(log_right, gamma), spared)
        if not self.config.symmetric:
            losses = losses + each_voxel(level, torch.neg, balance(level, delta, 0.0))
        return losses.sum() / answers(level)

    def _region(self, level: Level) -> Tensor:
        config = self.config
        missing = 1 - tversky(soft_counts(level, config), 1 - config.delta, config.smooth)
        steep = power(missing, 1 - config.gamma)
        if level.exclusive and config.include_background and not config.symmetric:
            steep = torch.cat([missing[:, :1], steep[:, 1:]], 1)
        return class_mean(steep, level, config)


build = UnifiedFocal
