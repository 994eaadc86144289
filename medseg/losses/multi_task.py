"""Several losses, each with a weight that is learned: the noisier a task, the less it counts.

Formula: sum_i exp(-s_i) L_i + s_i / 2, s_i = ln sigma_i^2 learned
Paper: Kendall, Gal and Cipolla 2018, Multi-task learning using uncertainty to weigh losses, CVPR
Equation: none in Taghanaki et al. 2021
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from medseg.losses._context import LossContext
from medseg.losses._factory import create_loss, resolve
from medseg.losses._options import Options


class Config(Options):
    """Options of the loss; those of every loss hold for each part that has none of its own.

    Args:
        losses: name, or name and options, of each part. A part that can be below 0 (`boundary`, `combo`, `conservative`) would be
            followed without end.
    """

    losses: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1, validate_default=True)] = (
        {"name": "dice"},
        {"name": "cross_entropy"},
    )

    @field_validator("losses")
    @classmethod
    def _complete(cls, parts: tuple[str | Mapping[str, Any], ...], info: ValidationInfo) -> tuple[dict[str, Any], ...]:
        shared = {name: info.data[name] for name in Options.model_fields if name in info.data}
        named = ({"name": part} if isinstance(part, str) else part for part in parts)
        return tuple(resolve({**shared, **part}) for part in named)


class MultiTask(nn.Module):
    """The parts see the same batch. All s begin with 0, and belong to what is optimised and kept in checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.losses = nn.ModuleList(create_loss(part) for part in config.losses)
        self.log_variance = nn.Parameter(torch.zeros(len(self.losses)))

    def forward(self, output: Any, target: Tensor, context: LossContext | None = None) -> Tensor:
        """The loss of a batch; as in every loss."""
        values = torch.stack([loss(output, target, context) for loss in self.losses])
        return ((-self.log_variance).exp() * values + self.log_variance / 2).sum()


build = MultiTask
