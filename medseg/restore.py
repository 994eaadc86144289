"""The way home: slabs of logits brought to the scan's own grid a few slices at a time, reduced, and let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medseg.inference import Slab
from medseg.interpolation import pull
from medseg.volume import Geometry

Array = npt.NDArray[Any]
Reduce = Callable[[Tensor], Tensor]
_CHUNK = 1 << 24  # logits held at once on the scan's own grid: 64 MB


def restore(
    stream: Iterator[Slab], source: Geometry, target: Geometry, reduce: Reduce, outside: Sequence[float]
) -> Iterator[tuple[int, int, Array]]:
    """Bring slabs to the scan's own grid and reduce them, a few slices at a time.

    Args:
        stream: slabs of logits on the grid `source`.
        source: the grid of the prepared image.
        target: the scan's own grid, oblique and sheared ones included.
        reduce: logits `(K, I, J, K)` -> what is kept of them, for instance labels `(1, I, J, K)`.
        outside: logit of each class where the scan was cropped away.

    Yields:
        (axis, first index along it, reduced array), covering the target once.
    """
    matrix = np.linalg.inv(source.affine) @ target.affine
    held: Slab | None = None
    plan: _Slices | None = None
    for slab in stream:
        plan = plan or _Slices(matrix, source.shape, target.shape, slab.axis)
        held = _joined(held, slab) if held else slab
        for first, count in plan.ready(held.stop, len(held.logits)):
            yield plan.axis, first, _pull_slices(held, plan, first, count, reduce, outside)
        held = _from(held, plan.needed_from())


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
        self.matrix, self.shape, self.length = matrix, tuple(target_shape), source_shape[source_axis]
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


def _pull_slices(held: Slab, plan: _Slices, first: int, count: int, reduce: Reduce, outside: Sequence[float]) -> Array:
    matrix, shape = plan.matrix.copy(), list(plan.shape)
    matrix[:3, 3] += first * matrix[:3, plan.axis]
    matrix[held.axis, 3] -= held.start
    shape[plan.axis] = count
    logits = pull(held.logits, matrix, shape, fill=float("nan"))
    for channel, value in zip(logits, outside, strict=True):
        channel.nan_to_num_(nan=value)
    return np.asarray(reduce(logits).cpu().numpy())
