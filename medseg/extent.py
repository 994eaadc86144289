"""How far a mask reaches along each axis of its array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def profiles(mask: Array, reduce: Callable[..., Any] = np.any) -> list[Array]:
    """What a reduction such as `np.any` or `np.sum` makes of each slice: for each axis, one value an index along it."""
    axes = range(mask.ndim)
    return [np.asarray(reduce(mask, axis=tuple(a for a in axes if a != axis))) for axis in axes]


def bounding_box(mask: Array, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box around the true voxels, widened by a margin that stays on the grid; empty for an empty mask."""
    hits = zip(map(np.flatnonzero, profiles(mask)), mask.shape, strict=True)
    return tuple(
        slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, size)) if len(hit) else slice(0, 0)
        for hit, size in hits
    )
