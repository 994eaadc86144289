"""Formulas of losses that compare regions: counts of voxels, and ratios of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medseg.losses._level import Level
from medseg.losses._options import OverlapOptions, StructureOptions


class Counts(NamedTuple):
    """Soft numbers of voxels by sample and structure, `(B, S)`, or `(1, S)` over the batch."""

    both: Tensor
    predicted: Tensor
    true: Tensor


def soft_counts(level: Level, options: OverlapOptions, *, squared: bool = False) -> Counts:
    """How many voxels are predicted, true, and both; `squared` sums the squares of predicted and true.

    Over the batch they are summed over the parts of it that other processes have, too.
    """
    p, truth = structures(level, options)
    sums = (p * truth, *((p.square(), truth.square()) if squared else (p, truth)))
    counts = Counts(*(values.flatten(2).sum(2) for values in sums))
    if not options.batch:
        return counts
    return Counts(*level.context.total(torch.stack([values.sum(0, keepdim=True) for values in counts])))


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 1 where below is 0: nothing predicted where there is nothing to find. NaN stays NaN."""
    return torch.where(below <= 0, 1.0, above / below.clamp(min=1e-12))


def dice(counts: Counts, smooth: float) -> Tensor:
    """Dice coefficient by sample and class: (2 both + smooth) / (predicted + true + smooth)."""
    return ratio(2 * counts.both + smooth, counts.predicted + counts.true + smooth)


def tversky(counts: Counts, beta: float, smooth: float) -> Tensor:
    """Tversky index by sample and class; an invented voxel costs `beta`, a missed one `1 - beta`."""
    both, predicted, true = counts
    return ratio(both + smooth, both + beta * (predicted - both) + (1 - beta) * (true - both) + smooth)


def generalised_dice(level: Level, options: OverlapOptions) -> Tensor:
    """Generalised Dice coefficient by sample, `(B,)`: one ratio over all classes, weighed by 1 / true^2."""
    both, predicted, true = soft_counts(level, options)
    weights = _inverse_squares(true, class_weights(level, options))
    above, below = (2 * weights * both).sum(1), (weights * (predicted + true)).sum(1)
    return ratio(above + options.smooth, below + options.smooth)


def _inverse_squares(true: Tensor, weights: Tensor) -> Tensor:
    """Weights `(B, S)`. A class absent from a sample, whose weight would be infinite, shares the largest one there."""
    present = true > 0
    inverse = torch.where(present & (weights > 0), true.clamp(min=1e-6) ** -2, 0)
    return torch.where(present, inverse, inverse.amax(1, keepdim=True)) * weights


def first_structure(level: Level, options: StructureOptions) -> int:
    """The first channel that counts: 1 where channel 0 is a background that does not."""
    return int(level.exclusive and not options.include_background)


def structures(level: Level, options: StructureOptions) -> tuple[Tensor, Tensor]:
    """Probabilities and truth of the S channels that count, `(B, S, *spatial)`, 0 where ignored."""
    first = first_structure(level, options)
    return level.keep(level.p[:, first:]), level.truth[:, first:]


def class_weights(level: Level, options: StructureOptions) -> Tensor:
    """Weights of the channels that count, `(S,)`."""
    return level.weights[first_structure(level, options) :]


def class_mean(values: Tensor, level: Level, options: StructureOptions, counted: Tensor | None = None) -> Tensor:
    """Weighted mean over classes and plain mean over samples of `(B, S)`, or of `(B, K)` with a background to leave out.

    With `counted`, 0 or 1 for each value, of those alone that count; a sample without any has a mean of 0.
    """
    weights = class_weights(level, options)
    first = values.shape[1] - len(weights)
    shares = weights if counted is None else weights * counted[:, first:]
    return ((values[:, first:] * shares).sum(1) / shares.sum(-1).clamp(min=1e-12)).mean()


def voxel_mean(values: Tensor, level: Level, options: StructureOptions) -> Tensor:
    """Mean over voxels and weighted mean over classes of `(B, S, *spatial)` that are 0 where ignored."""
    return class_mean(values.flatten(2).sum((0, 2))[None] / level.voxels, level, options)
