"""Several losses added up, with weights that may follow the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.losses._common import known, resolutions
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
        """The loss of a batch; as in every loss."""
        context = known(context)
        weighed = zip((at(term.weight, context.progress) for term in self.terms), self.losses, strict=True)
        values = [weight * loss(output, target, context) for weight, loss in weighed if weight]
        if not values:
            values = [0.0 * resolutions(output)[0].float().sum()]  # has a slope, be it of nothing
        return torch.stack(values).sum()
