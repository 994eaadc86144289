"""Soft centreline Dice: of tubes, whose connections matter more than their walls.

Formula: (1 - alpha) (1 - D) + alpha (1 - 2 P S / (P + S)), P = <skeleton(p), t> / |skeleton(p)|, S = <skeleton(t), p> / |skeleton(t)|
Paper: Shit et al. 2021, clDice, CVPR
Equation: none in Taghanaki et al. 2021; algorithms 1 and 2 of the paper
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._morphology import skeleton
from medseg.losses._options import OverlapOptions, Share, Weight
from medseg.losses._regions import class_mean, dice, ratio, soft_counts, structures


class Config(OverlapOptions):
    """Options of the loss.

    Args:
        alpha: share of the centreline, of which 1 leaves nothing else; Dice has the rest. The paper trains with at most .5.
        iterations: erosions that make the skeleton: the largest radius of a vessel in voxels, or more.
        smooth: added above and below every fraction bar.
    """

    alpha: Share = 1.0
    iterations: Annotated[int, Field(ge=0, le=1000)] = 3
    smooth: Weight = 1.0


class ClDice(Loss[Config]):
    """Mean over samples and classes."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 for a structure neither true nor predicted."""
        config = self.config
        loss = config.alpha * class_mean(1 - self._centreline(level), level, config)
        if config.alpha < 1:
            overlap = dice(soft_counts(level, config), config.smooth)
            loss = loss + (1 - config.alpha) * class_mean(1 - overlap, level, config)
        return loss

    def _centreline(self, level: Level) -> Tensor:
        """clDice by sample and structure."""
        smooth = self.config.smooth
        p, truth = structures(level, self.config)
        whole = truth.to(torch.int8) if level.hard else truth  # the same numbers in a quarter of the bytes
        found = []
        for lines, region in ((p, truth), (whole, p)):
            bones = skeleton(lines, self.config.iterations, level.valid).to(region)
            sums = torch.stack([values.flatten(2).sum(2) for values in (bones * region, bones)])
            if self.config.batch:
                sums = level.context.total(sums.sum(1, keepdim=True))
            found.append(ratio(sums[0] + smooth, sums[1] + smooth))
        precision, sensitivity = found
        return 2 * precision * sensitivity / (precision + sensitivity).clamp(min=1e-12)


build = ClDice
