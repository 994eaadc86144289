"""Several losses added up, with weights that may follow the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from medseg.losses._common import resolutions
from medseg.losses._context import LossContext
from medseg.losses._schedule import Scheduled, at
from medseg.settings import Settings


class Term(Settings):
    """How much a loss counts in a sum.

    Args:
        weight: a number, or `{from: 0.01, to: 1, over: 0.8}`: a straight line over the first eight tenths of the training.
    """

    weight: Scheduled = 1.0


class Sum(nn.Module):
    """A weighted sum of losses. One whose weight is 0 at the time is not computed."""

    def __init__(self, losses: Sequence[nn.Module], terms: Sequence[Term]) -> None:
        super().__init__()
        self.losses, self.terms = nn.ModuleList(losses), tuple(terms)

    def forward(self, output: Any, target: Tensor, context: LossContext | None = None) -> Tensor:
        """The loss of a batch; as of every loss."""
        progress = context.progress if context else 0.0
        weights = [at(term.weight, progress) for term in self.terms]
        total: Tensor = 0.0 * resolutions(output)[0].float().sum()  # has a slope, be it of nothing
        for weight, loss in zip(weights, self.losses, strict=True):
            if weight:
                total = total + weight * loss(output, target, context)
        return total
