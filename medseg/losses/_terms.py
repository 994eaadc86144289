"""Formulas that several losses share."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medseg.losses._common import Level, OverlapOptions

Reduction = Literal["mean", "sum", "weighted_mean"]


def log_loss(
    level: Level,
    *,
    positive: float = 1.0,
    negative: float = 1.0,
    gamma: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy, or focal loss where `gamma` is not 0.

    Args:
        level: the batch.
        positive: weight of structures.
        negative: weight of what is not a structure: channel 0 (softmax), or the outside of each channel (sigmoid).
        gamma: how much voxels that are right already lose of their weight.
        reduction: "mean" over voxels (softmax) or voxels and channels (sigmoid); "sum"; "weighted_mean" divides by the
            sum of all weights, so that weights change the balance and not the size.

    Returns:
        A scalar; 0 where nothing counts.
    """
    if level.exclusive:
        balance = torch.full_like(level.weights, positive)
        balance[0] = negative
        # Summed by class before weighing, which spares a pass over the voxels for the weights.
        losses = -balance * _sum(_focused(level.truth * level.log_p, level.log_p, gamma))
        count = balance * level.true.sum(0)
        voxels = level.voxels
    else:
        losses = two_sided_log_loss(level, positive=positive, negative=negative, gamma=gamma)
        count = positive * level.true.sum(0) + negative * _sum(level.not_truth)
        voxels = level.voxels * level.logits.shape[1]
    total = (losses * level.weights).sum()
    if reduction == "sum":
        return total
    return total / (voxels if reduction == "mean" else (count * level.weights).sum().clamp(min=1e-12))


def two_sided_log_loss(level: Level, *, positive: float, negative: float, gamma: float = 0.0) -> Tensor:
    """Sums by channel, `(K,)`, of -(positive t ln p + negative (1 - t) ln(1 - p)), focal where `gamma` is not 0."""
    inside = _sum(_focused(level.truth * level.log_p, level.log_p, gamma))
    outside = _sum(_focused(level.not_truth * level.log_not_p, level.log_not_p, gamma))
    return -(positive * inside + negative * outside)


def _sum(values: Tensor) -> Tensor:
    """Sums by channel, `(K,)`, of `(B, K, *spatial)`."""
    return values.flatten(2).sum((0, 2))


def _focused(losses: Tensor, log_right: Tensor, gamma: float) -> Tensor:
    """Losses times (1 - probability of the right answer) ** gamma."""
    if gamma == 0:
        return losses
    # The floor keeps the slope of a root finite where the answer is right to the last bit.
    return losses * (-torch.expm1(log_right)).clamp(min=1e-12) ** gamma


class Counts(NamedTuple):
    """Soft numbers of voxels, `(B, K)`, or `(1, K)` over the batch."""

    both: Tensor
    predicted: Tensor
    true: Tensor


def soft_counts(level: Level, options: OverlapOptions, *, squared: bool = False) -> Counts:
    """How many voxels are predicted, true, and both; `squared` sums the squares of predicted and true.

    Over the batch they are summed over the parts of it that other processes have, too.
    """
    p, truth = level.keep(level.p), level.truth
    both, predicted = (values.flatten(2).sum(2) for values in (p * truth, p * p if squared else p))
    counts = Counts(both, predicted, truth.square().flatten(2).sum(2) if squared else level.true)
    if not options.batch:
        return counts
    return Counts(*level.context.total(torch.stack([values.sum(0, keepdim=True) for values in counts])))


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 1 where below is 0: nothing predicted where there is nothing to find."""
    return torch.where(below > 0, above / below.clamp(min=1e-12), 1.0)


def dice(counts: Counts, smooth: float) -> Tensor:
    """Dice coefficient by sample and class: (2 both + smooth) / (predicted + true + smooth)."""
    return ratio(2 * counts.both + smooth, counts.predicted + counts.true + smooth)


def class_weights(level: Level, options: OverlapOptions) -> Tensor:
    """Weights `(K,)` with 0 for a background that does not count."""
    if options.include_background or not level.exclusive:
        return level.weights
    return torch.cat([torch.zeros_like(level.weights[:1]), level.weights[1:]])


def class_mean(values: Tensor, level: Level, options: OverlapOptions) -> Tensor:
    """Weighted mean over classes and plain mean over samples of `(B, K)`."""
    weights = class_weights(level, options)
    return (values * weights).sum(1).mean() / weights.sum().clamp(min=1e-12)
