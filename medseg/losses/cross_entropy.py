"""Cross entropy: plain, weighted by class, by structure, or by how rare a class is.

Formula: -sum_k w_k t_k ln p_k; with sigmoid -w (beta t ln p + (1 - t) ln(1 - p)) in each channel
Paper: Long et al. 2015, Fully convolutional networks, CVPR; Eigen and Fergus 2015, ICCV (median frequency)
Equation: 2 to 4 of Taghanaki et al. 2021, whose binary class 0 is the structure; here channel 0 is background
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Loss
from medseg.losses._level import Level
from medseg.losses._options import Options, Weight
from medseg.losses._voxels import Frequency, Reduction, balance, log_loss, rarity


class Config(Options):
    """Options of the loss. Background always counts; weigh it with `class_weights` or `beta`.

    Args:
        beta: weight of structures (eq. 4): above 1 fewer voxels are missed, below 1 fewer are invented.
        frequency: weigh classes by what they are in the batch, too: "inverse" by 1 / frequency; "median" by the median
            frequency / frequency. A class that is absent has weight 0.
        reduction: "mean" over voxels (with "sigmoid", over voxels and channels), "sum", or "weighted_mean", which divides by
            the sum of the weights, as torch does.
    """

    beta: Weight = 1.0
    frequency: Frequency | None = None
    reduction: Reduction = "mean"


class CrossEntropy(Loss[Config]):
    """Mean over voxels, and with "sigmoid" over channels."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        weights = balance(level, self.config.beta)
        if self.config.frequency:
            weights = weights.times(rarity(level, self.config.frequency))
        return log_loss(level, weights, self.config.reduction)


build = CrossEntropy
