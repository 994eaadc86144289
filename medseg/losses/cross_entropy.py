"""Cross entropy: plain, weighted, and balanced.

Source: Taghanaki et al., Deep semantic segmentation of natural and medical images, Artificial Intelligence Review 2021,
eq. 2 to 5. The review numbers the binary classes the other way round (class 0 is the structure); here channel 0 is background.
"""

from __future__ import annotations

from torch import Tensor

from medseg.losses._common import Level, Loss, Options, Weight
from medseg.losses._terms import Reduction, log_loss


class Config(Options):
    """Options of the loss. Background always counts; weigh it with `class_weights` or `beta`.

    Args:
        beta: weight of structures (eq. 4): above 1 fewer voxels are missed, below 1 fewer are invented.
        balanced: let background weigh `1 - beta` instead of 1 (eq. 5); `beta` is then at most 1.
        reduction: "mean" over voxels (with "sigmoid", over voxels and channels), "sum", or "weighted_mean", which divides by
            the sum of the weights, as torch does.
    """

    beta: Weight = 1.0
    balanced: bool = False
    reduction: Reduction = "mean"


class CrossEntropy(Loss[Config]):
    """`-sum_c w_c p_c ln ph_c`, or with "sigmoid" `-(beta p ln ph + (1 - p) ln(1 - ph))` in each channel."""

    def term(self, level: Level) -> Tensor:
        """The loss at one resolution; 0 where nothing counts."""
        beta = self.config.beta
        negative = 1 - beta if self.config.balanced else 1.0
        return log_loss(level, positive=beta, negative=negative, reduction=self.config.reduction)


def build(config: Config) -> CrossEntropy:
    """Make the loss."""
    return CrossEntropy(config)
