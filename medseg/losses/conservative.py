"""Conservative loss: flat where a voxel is moderately right, steep where it is wrong.

Formula: lambda (1 + log_a p_true)^2 log_a(-log_a p_true)
Paper: Zhu et al. 2018, Penalizing top performers: conservative loss for semantic segmentation adaptation, ECCV
Equation: 19 of Taghanaki et al. 2021
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options, Weight
from medseg.losses._voxels import answers, balance, each_voxel

_CERTAIN = 1e-6  # -ln p below which an answer counts as certain: the formula has no bound there


class Config(Options):
    """Options of the loss.

    Args:
        base: a, of the logarithms.
        scale: lambda.
    """

    base: Annotated[float, Field(gt=1, le=1e9)] = math.e
    scale: Weight = 5.0


class Conservative(Loss[Config]):
    """Mean over voxels (with "sigmoid", and channels). Value and slope are 0 at p = 1/a; right answers are below 0.

    An answer more certain than 1 - 1e-6 has the value and no slope of one that is as certain as that.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        return each_voxel(level, self._cost, balance(level)).sum() / answers(level)

    def _cost(self, log_right: Tensor) -> Tensor:
        unit = math.log(self.config.base)
        surprise = (-log_right).clamp(min=_CERTAIN) / unit
        return self.config.scale * (1 - surprise).square() * surprise.log() / unit


build = Conservative
