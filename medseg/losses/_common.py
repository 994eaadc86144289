"""The base class of losses, which brings any output and any target into one form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.losses._context import LossContext
from medseg.losses._level import Level, make_level
from medseg.losses._options import Options
from medseg.losses._target import with_channels
from medseg.wording import brief

C = TypeVar("C", bound=Options)


def resolutions(output: Any) -> tuple[Tensor, ...]:
    """Logits of what a network gives while it trains: those of full resolution first, auxiliary ones after them."""
    return (output.logits, *output.auxiliary) if hasattr(output, "auxiliary") else (output,)


def known(context: Any) -> LossContext:
    """The context of a batch, be it without facts.

    Raises:
        ConfigError: it is no context.
    """
    if not isinstance(context, LossContext | None):
        raise ConfigError(f"expected LossContext(...) as the context, got {brief(context)}")
    return context or LossContext()


class Loss(nn.Module, ABC, Generic[C]):
    """A loss on logits and targets. It does all that losses share; a particular one adds `term`.

    Auxiliary outputs of a model (deep supervision) are compared with the target at their own resolution and weigh 1/2,
    1/4, ... of the full one, all weights summing to 1. Arithmetic is in float32 at least, inside autocast too, so that a
    loss and its slope are finite for logits of +-50. A batch without a single voxel that counts has the loss's value for
    nothing to compare, and zero gradients; losses that need no truth count every voxel. Elsewhere, what is ignored might as well be
    cut off: no boundary, contour, distance or skeleton ends there.
    """

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def term(self, level: Level) -> Tensor:
        """The loss at one resolution, a scalar."""

    def forward(self, output: Any, target: Tensor, context: LossContext | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            output: logits `(B, K, *spatial)`, or an object with `logits` and `auxiliary` (lower resolutions, finest first).
            target: integers `(B, *spatial)`, or memberships `(B, K, *spatial)` in 0 to 1.
            context: facts about the batch.

        Returns:
            A scalar tensor.

        Raises:
            ConfigError: shapes, classes, weights and activation do not fit together, or the context lacks what the loss needs.
        """
        outputs = resolutions(output)
        target, context = with_channels(target, outputs[0]), known(context)
        with torch.autocast(target.device.type, enabled=False):
            terms = torch.stack([self.term(make_level(logits, target, context, self.config)) for logits in outputs])
            shares = 0.5 ** torch.arange(len(outputs), dtype=terms.dtype, device=terms.device)
            return (terms * shares).sum() / shares.sum()
