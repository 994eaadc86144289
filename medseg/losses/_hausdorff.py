"""What the three Hausdorff losses of Karimi and Salcudean share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, Weight
from medseg.losses._regions import class_mean, dice, soft_counts, voxel_mean


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        alpha: power of the distances, 0 to 10, which are in mm where the context knows the spacing and in voxels otherwise.
        dice_weight: weight of an added Dice loss with squared denominator (eq. 24), which steadies the start of training.
    """

    alpha: Annotated[float, Field(ge=0, le=10)] = 2.0
    dice_weight: Weight = 0.0


def composite(errors: Tensor, level: Level, config: Config) -> Tensor:
    """Mean of `(B, S, *spatial)` over voxels and classes, with Dice beside it where wanted (eq. 24)."""
    loss = voxel_mean(errors, level, config)
    if config.dice_weight:
        overlap = dice(soft_counts(level, config, squared=True), config.smooth)
        loss = loss + config.dice_weight * class_mean(1 - overlap, level, config)
    return loss
