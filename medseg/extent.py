"""Where a mask lies in its array: profiles along the axes, bounding box, connected components."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from medseg.arrays import Array

_NEIGHBOURS: dict[tuple[int, bool], Literal[4, 6, 8, 26]]
_NEIGHBOURS = {(2, True): 4, (2, False): 8, (3, True): 6, (3, False): 26}  # by axes, and whether faces alone count


def profiles(mask: Array, reduce: Callable[..., Any] = np.any) -> list[Array]:
    """What a reduction such as `np.any` or `np.sum` makes of each slice: for each axis, one value per index along it."""
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


def components(mask: Array, *, faces: bool = False) -> Array:
    """Connected components of a boolean array, 2D or 3D, numbered from 1; 0 outside.

    Args:
        mask: where to look.
        faces: voxels hang together by faces alone, and not by edges and corners.
    """
    import cc3d

    if not mask.size:  # cc3d would take its axes away
        return mask.astype(np.uint32)
    wide = np.pad(mask, [(0, n % 2) for n in mask.shape])  # cc3d makes room for too few pieces along odd axes
    found = cc3d.connected_components(wide, connectivity=_NEIGHBOURS[mask.ndim, faces])
    return np.asarray(found[tuple(map(slice, mask.shape))])
