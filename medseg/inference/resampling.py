"""Slabs of logits are resampled to the scan's own grid a few slices at a time, reduced, and let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from medseg import memory
from medseg.arrays import Array
from medseg.geometry.interpolation import between_boxes, pull
from medseg.geometry.region import Box
from medseg.inference.sliding import Slab, Slabs
from medseg.inference.stitching import Range, divided
from medseg.volume import Geometry

Reduce = Callable[[Tensor], Tensor]
_CHUNK = 1 << 22  # logits held at once on the scan's own grid: 16 MB


def resample_slabs(
    slabs: Slabs,
    source: Geometry,
    target: Geometry,
    reduce: Reduce,
    outside: Sequence[float],
    strips: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Box, Array]]:
    """Resample slabs to the scan's own grid and reduce them, a few slices at a time.

    Args:
        slabs: of logits on the grid `source`.
        source: the grid of the prepared image.
        target: the scan's own grid, oblique and sheared ones included.
        reduce: logits `(K, I, J, K)` -> what is kept of them, for instance labels `(1, I, J, K)`.
        outside: logit of each class where the scan was cropped away.
        strips: axis of the source, and number of regions along it that are streamed one after the other.

    Yields:
        (box of the target, reduced array), covering the target once.
    """
    matrix = np.linalg.inv(source.affine) @ target.affine
    axis = int(np.abs(matrix[strips[0], :3]).argmax())
    for first, stop in memory.one_by_one(divided(target.shape[axis], strips[1])):
        begin = [first if a == axis else 0 for a in range(3)]
        shape = [stop - first if a == axis else n for a, n in enumerate(target.shape)]
        part = between_boxes(matrix, begin, (0, 0, 0))
        for box, array in _resample(slabs, source, part, shape, reduce, outside):
            i, j, k = (slice(b.start + a, b.stop + a) for a, b in zip(begin, box, strict=True))
            yield (i, j, k), array


def _resample(
    slabs: Slabs, source: Geometry, matrix: Array, shape: Sequence[int], reduce: Reduce, outside: Sequence[float]
) -> Iterator[tuple[Box, Array]]:
    """One strip: the region of the source that it needs, streamed."""
    region = _needed(matrix, source.shape, shape)
    held: Slab | None = None
    plan: _Slices | None = None
    for slab in slabs(region):
        plan = plan or _Slices(matrix, source.shape, shape, slab.axis)
        held = _joined(held, slab) if held else slab
        for first, count in plan.ready(held.stop, len(held.logits)):
            i, j, k = (slice(first, first + count) if a == plan.axis else slice(0, n) for a, n in enumerate(shape))
            begin = [held.start if a == slab.axis else start for a, (start, _) in enumerate(region)]
            part = between_boxes(matrix, (i.start, j.start, k.start), begin)
            logits = pull(held.logits, part, [s.stop - s.start for s in (i, j, k)], fill=outside)
            yield (i, j, k), np.asarray(reduce(logits).cpu().numpy())
        held = _from(held, plan.needed_from())


def _needed(matrix: Array, source_shape: Sequence[int], target_shape: Sequence[int]) -> list[Range]:
    """What of the source the voxels of a target lie between, and one index more, for the sums are rounded."""
    last = matrix[:3, :3] * (np.array(target_shape) - 1)
    low = np.floor(matrix[:3, 3] + np.minimum(last, 0).sum(1)) - 1
    high = np.ceil(matrix[:3, 3] + np.maximum(last, 0).sum(1)) + 1
    limits = np.array(source_shape) - 1
    return [(int(a), int(b) + 1) for a, b in zip(np.clip(low, 0, limits), np.clip(high, 0, limits), strict=True)]


def _joined(a: Slab, b: Slab) -> Slab:
    return Slab(a.start, a.axis, torch.cat([a.logits, b.logits], a.axis + 1))


def _from(slab: Slab, start: int) -> Slab:
    """What a slab holds from an index on; a copy, so that the rest is let go."""
    unused = min(max(0, start - slab.start), slab.stop - slab.start)
    kept = slab.logits.narrow(slab.axis + 1, unused, slab.stop - slab.start - unused).clone()
    return Slab(slab.start + unused, slab.axis, kept)


class _Slices:
    """Which slices of the target can be made once the source is known up to some index."""

    def __init__(
        self, matrix: Array, source_shape: Sequence[int], target_shape: Sequence[int], source_axis: int
    ) -> None:
        row = matrix[source_axis]
        self.shape, self.length = tuple(target_shape), source_shape[source_axis]
        self.axis = int(np.abs(row[:3]).argmax())
        ends = [sorted((0.0, row[a] * (target_shape[a] - 1))) for a in range(3) if a != self.axis]
        along = row[3] + row[self.axis] * np.arange(target_shape[self.axis])
        low, high = along + sum(e[0] for e in ends), along + sum(e[1] for e in ends)
        # Slices beyond the source need nothing but its nearest edge.
        self.low = np.clip(np.floor(low), 0, self.length - 1).astype(int)
        self.high = np.clip(np.ceil(high), 0, self.length - 1).astype(int)
        self.order = np.argsort(along, kind="stable")
        self.done = 0

    def ready(self, end: int, classes: int) -> Iterator[tuple[int, int]]:
        """First index and number of slices that need nothing at or after `end`, at most `_CHUNK` logits each."""
        plane = classes * int(np.prod(self.shape)) // self.shape[self.axis]
        most = max(1, _CHUNK // plane)
        while self.done < len(self.order):
            rest = self.order[self.done : self.done + most]
            count = int(np.argmin([*(self.high[rest] < end), False]))
            if not count:
                return
            self.done += count
            yield int(rest[:count].min()), count

    def needed_from(self) -> int:
        """First index of the source that a later slice needs."""
        return int(self.low[self.order[self.done :]].min()) if self.done < len(self.order) else self.length
