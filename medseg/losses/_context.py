"""What a loss may know besides logits and truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from medseg.errors import ConfigError
from medseg.wording import brief

if TYPE_CHECKING:
    from torch import Tensor


def _alone(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True, eq=False)
class LossContext:
    """Facts about a batch for contour, distance, schedule and consistency terms. Simple losses need none of them.

    Args:
        image: what the network saw, `(B, C, *spatial)`.
        spacing_mm: distance between voxel centres along each spatial axis; a 2D network ignores the third number.
        progress: how much of the training is over, 0 to 1.
        predict: the network, for losses that want to know what it says of another image.
        extras: further tensors by name, for losses that ask for them: `second`, logits for another view of the image;
            `boundary`, logits `(B, 1, *spatial)` of where classes meet.
        total: adds values up over the processes that train together, each of which has a part of the batch.

    Raises:
        ConfigError: spacing, progress or extras are none.
    """

    image: Tensor | None = None
    spacing_mm: tuple[float, ...] | None = None
    progress: float = 0.0
    predict: Callable[[Tensor], Any] | None = None
    extras: Mapping[str, Any] | None = None
    total: Callable[[Tensor], Tensor] = _alone

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing_mm", _steps(self.spacing_mm))
        if not isinstance(self.progress, Real) or not 0 <= self.progress <= 1:
            raise ConfigError(f"progress is a number from 0 to 1, got {brief(self.progress)}")
        if not isinstance(self.extras, Mapping | None):
            raise ConfigError(f"extras are tensors by name, such as {{'second': logits}}, got {brief(self.extras)}")


def _steps(spacing_mm: Any) -> tuple[float, ...] | None:
    """Distances between voxel centres.

    Raises:
        ConfigError: they are no numbers above 0.
    """
    if spacing_mm is None:
        return None
    try:
        steps = tuple(float(step) for step in ([] if isinstance(spacing_mm, str) else spacing_mm))
    except (TypeError, ValueError):
        steps = ()
    if not steps or not all(0 < step < math.inf for step in steps):
        raise ConfigError(f"spacing_mm needs numbers above 0, one a spatial axis, got {brief(spacing_mm)}")
    return steps
