"""Size constraint: a structure should be about as large as is known, wherever it lies.

Formula: ((V - low) / N)^2 where V < low, ((V - high) / N)^2 where V > high, V = sum p
Paper: Kervadec et al. 2019, Constrained-CNN losses for weakly supervised segmentation, Medical Image Analysis
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, field_validator
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import StructureOptions, Weight
from medseg.losses._regions import class_mean


class Config(StructureOptions):
    """Options of the loss.

    Args:
        bounds_ml: lowest and highest volume of each channel in a patch, background included (in 2D, of a slice 1 mm thick; in
            thousands of voxels where the context knows no spacing). Voxels that nobody annotated count then, too. None bounds
            each structure by its true size in the patch.
        tolerance: how far from its true size a structure may be, as a share of it.
    """

    bounds_ml: tuple[tuple[Weight, Annotated[float, Field(ge=0)]], ...] | None = None
    tolerance: Weight = 0.1

    @field_validator("bounds_ml")
    @classmethod
    def _in_order(cls, bounds: tuple[tuple[float, float], ...] | None) -> tuple[tuple[float, float], ...] | None:
        if wrong := [pair for pair in bounds or () if pair[0] > pair[1]]:
            raise ValueError(f"expected the lowest volume before the highest, got {list(wrong[0])}")
        return bounds


class SizeConstraint(Loss[Config]):
    """Mean over samples and classes. It says nothing of the place, and stands beside another loss.

    Sizes are shares of the voxels that count, where the paper has voxels: a slope then is as steep as those of other losses.
    """

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 within the bounds, and where nothing is annotated and no bounds are given."""
        patch: Tensor | int = level.logits[0, 0].numel()
        if self.config.bounds_ml is None:
            size, patch = level.keep(level.p).flatten(2).sum(2), level.sizes.clamp(min=1)
            low, high = level.true * (1 - self.config.tolerance), level.true * (1 + self.config.tolerance)
        else:
            size = level.p.flatten(2).sum(2)
            low, high = self._bounds(level).unbind(1)
        outside = (low - size).relu() + (size - high).relu()
        return class_mean((outside / patch).square(), level, self.config)

    def _bounds(self, level: Level) -> Tensor:
        """In voxels, `(K, 2)`."""
        bounds = self.config.bounds_ml or ()
        if len(bounds) != len(level.weights):
            raise ConfigError(f"bounds_ml needs {len(level.weights)} pairs, one a channel, got {len(bounds)}")
        return level.weights.new_tensor(bounds) * (1000 / math.prod(level.spacing_mm))


build = SizeConstraint
