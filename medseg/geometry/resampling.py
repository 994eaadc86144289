"""Arrays on another grid, a few slices at a time: what lies between source and result stays in the processor's cache.

Whatever an array's order in memory (that of a NIfTI file is the reverse of numpy's), it is read and written in long runs.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from medseg.arrays import Array
from medseg.geometry.interpolation import between_boxes, outside, pull, reach, source_axes

_SLAB = 1 << 21  # voxels worked on at once: 8 MB in float32
_CORNERS = tuple(itertools.product((0, 1), repeat=3))


def linear(array: Array, matrix: Array, shape: Sequence[int], fill: float = 0.0, *, antialias: bool = False) -> Array:
    """Values between voxels in float32, of an array `(C, I, J, K)` of any type; the other arguments are those of `pull`."""
    import torch

    if source_axes(matrix) is None:
        return pull(torch.from_numpy(array.astype(np.float32)), matrix, shape, fill, antialias=antialias).numpy()
    result = np.empty((len(array), *shape), np.float32)
    for slab in _slabs(array, result, matrix, antialias):
        source = torch.from_numpy(slab.source.astype(np.float32))
        values = pull(source, slab.matrix, slab.target.shape[1:], fill, antialias=antialias)
        torch.from_numpy(slab.target).copy_(values)
    return result


def nearest(array: Array, matrix: Array, shape: Sequence[int], fill: float = 0.0) -> Array:
    """The nearest voxel's value, in the array's own type; the arguments are those of `linear`."""
    result = np.empty((len(array), *shape), array.dtype)
    for slab in _slabs(array, result, matrix):
        index = [_within(np.floor(at + 0.5), size) for at, size in slab.places()]
        i, j, k = index
        slab.target[...] = _taken(slab.source, index) if slab.aligned else slab.source[:, i, j, k]
        _fill_outside(slab, fill)
    return result


def vote(labels: Array, matrix: Array, shape: Sequence[int]) -> Array:
    """The label with most weight among the eight voxels around, as if each label's indicator were interpolated linearly.

    What lies outside is background. Of labels with the same weight background wins, then the lowest. There is a vote only where
    the eight differ: the time hardly depends on the number of labels.
    """
    result = np.empty((len(labels), *shape), labels.dtype)
    for cut in _slabs(labels, result, matrix):
        slab = cut._replace(source=np.ascontiguousarray(cut.source))
        lowest = [_within(np.floor(at), max(size - 1, 1)) for at, size in slab.places()]
        offset = [np.clip(at, 0, size - 1) - low for (at, size), low in zip(slab.places(), lowest, strict=True)]
        where = _undecided(slab, lowest) if slab.aligned else np.nonzero(np.ones(slab.target.shape, bool))
        corner, offset = ([np.broadcast_to(x, slab.target.shape[1:])[where[1:]] for x in xs] for xs in (lowest, offset))
        slab.target[where] = _elected(slab.source, where[0], corner, offset)
        _fill_outside(slab, 0)
    return result


class _Slab(NamedTuple):
    """A part of a result, and the part of the source that it is made of.

    Args:
        source: `(C, I, J, K)`.
        target: likewise; to be written.
        matrix: (4, 4) index of the target -> fractional index of the source.
        aligned: whether the matrix is diagonal but for its last column.
    """

    source: Array
    target: Array
    matrix: Array
    aligned: bool

    def places(self) -> Iterator[tuple[Array, int]]:
        """For each axis of the source the positions of the target's voxels, to be broadcast to its shape, and the axis's size.

        Rounded, so that what lies midway between two voxels does so in every slab.
        """
        index = np.ogrid[tuple(slice(n) for n in self.target.shape[1:])]
        for row, size in zip(self.matrix[:3], self.source.shape[1:], strict=True):
            yield np.round(sum(step * i for step, i in zip(row[:3], index, strict=True) if step) + row[3], 6), size


def _slabs(array: Array, result: Array, matrix: Array, antialias: bool = False) -> Iterator[_Slab]:
    """All of a result: in slabs with axes in the order of the array's memory, or slice by slice where grids are oblique."""
    order = source_axes(matrix)
    if order is None:
        array = np.ascontiguousarray(array)  # once for all slices
        for n in range(result.shape[1]):
            yield _Slab(array, result[:, n : n + 1], between_boxes(matrix, (n, 0, 0), (0, 0, 0)), False)
        return
    by = sorted(range(3), key=lambda a: -abs(array.strides[order[a] + 1]))
    source, target = array.transpose(0, *(order[a] + 1 for a in by)), result.transpose(0, *(a + 1 for a in by))
    matrix = matrix[np.ix_([*(order[a] for a in by), 3], [*by, 3])]
    matrix[:3, :3] *= np.eye(3)
    axis = int(by[0] == 2)  # the result's last axis is not cut, so that it is written in runs
    length, size = target.shape[axis + 1], source.shape[axis + 1]
    support = reach(matrix[axis, axis], antialias)
    count = max(1, _SLAB * length // max(source.size, target.size))
    for first in range(0, length, count):
        stop = min(first + count, length)
        ends = np.clip(matrix[axis, 3] + matrix[axis, axis] * np.array((first, stop - 1)), 0, size - 1)
        low, high = int(max(0, ends.min() - support + 1)), int(min(size, ends.max() + support + 1))
        across, begin = (slice(None),) * (axis + 1), np.eye(3)[axis]
        part = between_boxes(matrix, begin * first, begin * low)
        yield _Slab(source[(*across, slice(low, high))], target[(*across, slice(first, stop))], part, True)


def _within(index: Array, size: int) -> Array:
    return np.clip(index, 0, size - 1).astype(np.intp)


def _taken(array: Array, index: Sequence[Array]) -> Array:
    """The voxels where indices along each axis meet; axes that shrink go first."""
    for axis in sorted(range(3), key=lambda a: index[a].size / array.shape[a + 1]):
        array = np.take(array, index[axis].ravel(), axis + 1)
    return array


def _fill_outside(slab: _Slab, fill: float) -> None:
    for at, size in slab.places():
        if (beyond := outside(at, size)).any():
            slab.target[:, np.broadcast_to(beyond, slab.target.shape[1:])] = fill


def _undecided(slab: _Slab, lowest: Sequence[Array]) -> tuple[Array, ...]:
    """Give the target the label of each voxel's lowest corner, and say where the eight corners differ."""
    code = slab.source.astype(np.promote_types(slab.source.dtype, np.uint8))
    mark = np.inf if code.dtype.kind == "f" else np.iinfo(code.dtype).max  # a label of that number votes everywhere
    if (mixed := _mixed(slab.source)) is not None:
        np.copyto(code[tuple(slice(size) for size in mixed.shape)], mark, where=mixed)
    code = _taken(code, lowest)
    slab.target[...] = code
    return np.unravel_index(np.flatnonzero(code == mark), code.shape)  # for few, a tenth of the time of nonzero


def _mixed(labels: Array) -> Array | None:
    """Whether the eight voxels from each one on hold more than one label, one element less along each axis of several."""
    mixed: Array | None = None
    for axis in (3, 2, 1):
        if labels.shape[axis] > 1:
            labels, after = _ends(labels, axis)
            differ = labels != after
            if mixed is not None:
                for side in _ends(mixed, axis):
                    differ |= side
            mixed = differ
    return mixed


def _ends(array: Array, axis: int) -> tuple[Array, Array]:
    """All but the last, and all but the first."""
    across = (slice(None),) * axis
    return array[(*across, slice(-1))], array[(*across, slice(1, None))]


def _elected(labels: Array, channel: Array, corner: Sequence[Array], offset: Sequence[Array]) -> Array:
    """The label with most weight at some places, of which lowest corner and offset from it are known along each axis."""
    base, flat = np.ravel_multi_index((channel, *corner), labels.shape), labels.reshape(-1)
    steps = [math.prod(labels.shape[a + 1 :]) * (labels.shape[a] > 1) for a in (1, 2, 3)]
    values = np.stack([flat.take(base + sum(map(operator.mul, steps, ends))) for ends in _CORNERS])
    elected, split = values[0], np.flatnonzero((values != values[0]).any(0))
    values, ahead = values.take(split, 1), np.stack([x[split] for x in offset]).astype(np.float32)
    (a, b), (c, d), (e, f) = ((1 - x, x) for x in ahead)
    weights = np.stack([i * jk for i in (a, b) for jk in (c * e, c * f, d * e, d * f)])
    # The nearest voxel's label mostly has the majority, and then the others need not be counted.
    winner = values[np.array((4, 2, 1)) @ (ahead > 0.5), np.arange(len(split))]
    close = np.flatnonzero(_support(winner, values, weights) <= 0.5)
    winner[close] = _heaviest(values[:, close], weights[:, close])
    elected[split] = winner
    return elected


def _heaviest(values: Array, weights: Array) -> Array:
    """Of each column of labels the one with the largest sum of weights; background, then the lowest, where some have the same."""
    sums = np.stack([_support(value, values, weights) for value in values])
    first = sums >= sums.max(0)
    lowest = np.where(first, values, values.max(0)).min(0)
    return np.where((first & (values == 0)).any(0), 0, lowest)


def _support(label: Array, values: Array, weights: Array) -> Array:
    """How much weight each column has for one label."""
    return np.einsum("vn,vn->n", values == label, weights)
