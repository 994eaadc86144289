"""What a loss may know besides logits and truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """

    image: Tensor | None = None
    spacing_mm: tuple[float, ...] | None = None
    progress: float = 0.0
    predict: Callable[[Tensor], Any] | None = None
    extras: Mapping[str, Any] | None = None
    total: Callable[[Tensor], Tensor] = _alone
