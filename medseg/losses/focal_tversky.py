"""Focal Tversky loss: a root of the Tversky loss, so that structures that are found badly keep most of the slope.

Formula: (1 - T)^(1 / gamma), T the Tversky index
Paper: Abraham and Khan 2019, A novel focal Tversky loss function with improved attention U-Net, ISBI
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Share
from medseg.losses._regions import class_mean, soft_counts, tversky
from medseg.losses._voxels import power


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        beta: price of an invented voxel, 0 to 1; a missed one costs `1 - beta` (.7, the paper's alpha).
        gamma: with 1 this is `tversky`.
    """

    beta: Share = 0.3
    gamma: Annotated[float, Field(ge=0.01, le=1e9)] = 4 / 3


class FocalTversky(Loss[Config]):
    """Mean over samples and classes; the paper sums over classes."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure neither true nor predicted, close to 1 for an invented one."""
        index = tversky(soft_counts(level, self.config), self.config.beta, self.config.smooth)
        return class_mean(power(1 - index, 1 / self.config.gamma), level, self.config)


build = FocalTversky
