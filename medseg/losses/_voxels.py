"""Formulas of losses that look at one voxel after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.losses._level import Level

_TINY = 1e-30  # the slope of a root that is smaller would be too large for single precision
Reduction = Literal["mean", "sum", "weighted_mean"]
Frequency = Literal["inverse", "median"]


@dataclass(frozen=True)
class Balance:
    """Weights `(K,)` of what belongs to a class, and, with sigmoid, of what does not."""

    inside: Tensor
    outside: Tensor

    def times(self, other: Balance) -> Balance:
        """Both together."""
        return Balance(self.inside * other.inside, self.outside * other.outside)


def balance(level: Level, positive: float = 1.0, negative: float = 1.0) -> Balance:
    """Class weights times `positive` for structures and `negative` for what is none: channel 0, or the outside of each channel."""
    inside = torch.full_like(level.weights, positive)
    if level.exclusive:
        inside[0] = negative
    return Balance(inside * level.weights, 0 * level.weights if level.exclusive else negative * level.weights)


def rarity(level: Level, kind: Frequency) -> Balance:
    """The inverse of how frequent each class is in the batch; 0 for a class that is absent.

    "median" weighs the class of median frequency with 1, and counts the voxels of those samples alone in which a class occurs
    (Eigen and Fergus, ICCV 2015). With sigmoid each channel has two classes, inside and outside.
    """
    true = level.true if level.exclusive else torch.stack([level.true, level.sizes - level.true])
    sizes = level.sizes * (true > 0) if kind == "median" else level.sizes.expand_as(true)
    counts, seen = level.context.total(torch.stack([true.sum(-2), sizes.sum(-2)]))
    frequency, present = counts / seen.clamp(min=1), counts > 0
    inverse = torch.where(present, 1 / frequency.clamp(min=1e-12), 0)
    if kind == "median":
        classes = -1 if level.exclusive else 0
        inverse = inverse * frequency.where(present, torch.nan).nanquantile(0.5, classes, keepdim=True).nan_to_num()
    return Balance(inverse, inverse) if level.exclusive else Balance(*inverse)


def log_sums(level: Level, *, two_sided: bool) -> tuple[Tensor, Tensor]:
    """Sums by sample and class, `(B, K)`, of t ln p and of (1 - t) ln(1 - p); the latter is 0 unless `two_sided`."""
    inside = (level.truth * level.log_p).flatten(2).sum(2)
    outside = (level.not_truth * level.log_not_p).flatten(2).sum(2) if two_sided else torch.zeros_like(inside)
    return inside, outside


def log_loss(level: Level, weights: Balance, reduction: Reduction = "mean") -> Tensor:
    """Cross entropy.

    Args:
        level: the batch.
        weights: of classes.
        reduction: "mean" over voxels (softmax) or voxels and channels (sigmoid); "sum"; "weighted_mean" divides by the
            sum of all weights, so that weights change the balance and not the size.

    Returns:
        A scalar; 0 where nothing counts.
    """
    # Summed by class before weighing, which spares a pass over the voxels for the weights.
    inside, outside = log_sums(level, two_sided=not level.exclusive)
    total = -_weighed(weights, inside, outside)
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / answers(level)
    return total / _weighed(weights, level.true, level.sizes - level.true).clamp(min=1e-12)


def _weighed(weights: Balance, inside: Tensor, outside: Tensor) -> Tensor:
    return (weights.inside * inside).sum() + (weights.outside * outside).sum()


def answers(level: Level) -> Tensor:
    """How many answers count: one a voxel, or with sigmoid one a voxel and channel."""
    return level.voxels if level.exclusive else level.voxels * level.logits.shape[1]


def each_voxel(level: Level, cost: Callable[[Tensor], Tensor], weights: Balance) -> Tensor:
    """What each answer costs, weighed by its class, `(B, 1, *spatial)`, with sigmoid `(B, K, *spatial)`; 0 where ignored.

    Args:
        level: the batch.
        cost: of the logarithm of the probability of the right answer. Where every truth is 0 or 1, it is evaluated once a
            voxel instead of once a class.
        weights: of classes.
    """
    inside, outside = level.by_channel(weights.inside), level.by_channel(weights.outside)
    if level.exclusive and level.hard:
        right = (level.truth * level.log_p).sum(1, keepdim=True)
        return cost(right) * (weights.inside @ level.truth.flatten(2)).view_as(right)
    if level.exclusive:
        return (level.truth * cost(level.log_p) * inside).sum(1, keepdim=True)
    if level.hard:
        right = F.logsigmoid(level.logits * (2 * level.truth - 1))
        return cost(right) * (level.truth * inside + level.not_truth * outside)
    return level.truth * cost(level.log_p) * inside + level.not_truth * cost(level.log_not_p) * outside


def wrong(log_right: Tensor) -> Tensor:
    """1 - probability of the right answer, exact where that is nearly 1."""
    return -torch.expm1(log_right)


def focal(log_right: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma ln p of the right answer: what is right already costs little, and nearly nothing with a large gamma."""
    return -power(wrong(log_right), gamma) * log_right


def power(base: Tensor, exponent: float) -> Tensor:
    """base ** exponent for a base of 0 or more (a rounding below 0 is 0). A root is 0 at 0, and has a slope of 0 there."""
    raised = base.clamp(min=_TINY) ** exponent
    return raised if exponent >= 1 else raised * (base > _TINY)
