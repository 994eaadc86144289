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
    box, shape = [], mask.shape
    for size in shape:
        hit = np.flatnonzero(mask.any(tuple(range(1, mask.ndim))))
        low, stop = (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 0)
        box.append(slice(max(low - margin, 0), min(stop + margin, size)) if stop else slice(0, 0))
        mask = np.asarray(mask[low:stop].any(0))  # what is left for the other axes is one slice
    return tuple(box)
