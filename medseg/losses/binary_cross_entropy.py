"""Binary cross entropy: each structure against all else.

Formula: -(beta t ln p + (1 - t) ln(1 - p))
Paper: Taghanaki et al. 2021, Deep semantic segmentation of natural and medical images, Artificial Intelligence Review
Equation: 2, and 4 with beta, where class 0 is the structure; here channel 0 is background
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import StructureOptions, Weight
from medseg.losses._regions import class_mean
from medseg.losses._voxels import log_sums


class Config(StructureOptions):
    """Options of the loss.

    Args:
        beta: weight of a structure's own voxels: above 1 fewer are missed, below 1 fewer are invented.
    """

    beta: Weight = 1.0


class BinaryCrossEntropy(Loss[Config]):
    """Mean over voxels and structures. With two exclusive classes it is `cross_entropy`."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        inside, outside = log_sums(level, two_sided=True)
        sums = (self.config.beta * inside + outside).sum(0, keepdim=True)
        return class_mean(-sums / level.voxels, level, self.config)


build = BinaryCrossEntropy
