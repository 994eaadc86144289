"""Slices on an even grid, from slices at their true places: what is missing is interpolated between its neighbours, and said."""

from __future__ import annotations

import numpy as np

from medseg.arrays import Array
from medseg.errors import GeometryError
from medseg.io.dicom._grid import Stack
from medseg.volume import Kind


def filled(array: Array, stack: Stack, kind: Kind) -> tuple[Array, tuple[str, ...]]:
    """The slices of a stack's grid, and a note on those that were made up.

    Args:
        array: `(planes, rows, columns)`, a slice for each plane.
        stack: where these lie.
        kind: "labels" takes the nearer slice, "image" interpolates linearly.

    Returns:
        `(slices, rows, columns)`; the very array where the stack is even.

    Raises:
        GeometryError: two slices in one place differ.
    """
    if not stack.uneven:
        return array, ()
    assert stack.grid is not None
    at, first = np.unique(stack.at, return_index=True)
    for n in sorted(set(range(len(array))) - set(first.tolist())):
        if not np.array_equal(array[n], array[n - 1]):
            raise GeometryError(f"{stack.uneven}, and they differ; which of them is right cannot be known")
    array = array[first]
    wanted = np.arange(stack.grid.shape[2])
    after = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
    share = np.clip((wanted - at[after - 1]) / (at[after] - at[after - 1]), 0, 1)
    if kind == "labels":
        share = np.rint(share)
    slices = [_between(array[b - 1], array[b], s) for b, s in zip(after, share, strict=True)]
    made = int(np.count_nonzero((share > 0) & (share < 1)))
    return np.stack(slices), (f"{stack.uneven}: {made} of {len(wanted)} slices are interpolated",)


def _between(before: Array, after: Array, share: float) -> Array:
    if share in (0, 1):
        return after if share else before
    return (before + (after.astype(np.float32) - before) * np.float32(share)).astype(np.float32)
