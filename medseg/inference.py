"""A network over a whole scan as a stream: windows in order along one axis, and finished slabs of logits as they come.

A slab is finished as soon as no later window touches it. It is brought to the scan's own grid a few slices at a time, reduced
to labels, and let go: memory follows classes x slab, not classes x scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from medseg import geometry as geo
from medseg.sample import window_starts
from medseg.settings import Settings
from medseg.volume import Geometry

Array = npt.NDArray[Any]
Network = Callable[[Tensor], Tensor]
Reduce = Callable[[Tensor], Tensor]
_CHUNK = 1 << 24  # logits held at once on the scan's own grid: 64 MB


class Config(Settings):
    """How a scan is covered by windows.

    Args:
        window: voxels of a window along i, j and k; 1 along k for 2D models.
        overlap: least share of a window that its neighbour covers too, 0 to below 1.
        batch: windows computed at once.
        mirror_axes: axes that test-time augmentation flips.
    """

    window: tuple[int, int, int]
    overlap: float = Field(default=0.5, ge=0, lt=1)
    batch: int = Field(default=4, ge=1)
    mirror_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Slab:
    """Logits `(K, I, J, K)` that no later window changes; they begin at index `start` of axis `axis` of the image."""

    start: int
    axis: int
    logits: Tensor


def slabs(image: Tensor, network: Network, config: Config, *, mirrors: bool = False) -> Iterator[Slab]:
    """Run a network over an image, and yield finished logits in order along the axis with most windows.

    Args:
        image: `(C, I, J, K)` on any device; windows are moved to the device that `network` wants by itself.
        network: `(B, C, *window)` -> logits `(B, K, *window)`; the last axis is left out where the window's is 1.
        config: windows. Where the image is shorter than the window, it is padded with 0 (the mean of a normalised image).
        mirrors: average over all flips of `config.mirror_axes`.

    Yields:
        Slabs that together cover the image once, in float32.
    """
    size = image.shape[1:]
    window = config.window
    short = [max(0, w - n) for w, n in zip(window, size, strict=True)]
    image = torch.nn.functional.pad(image, [n for s in reversed(short) for n in (s // 2, s - s // 2)])
    starts = [window_starts(n, w, config.overlap) for n, w in zip(image.shape[1:], window, strict=True)]
    axis = int(np.argmax([len(s) for s in starts]))
    weights = [_weights(s, w, n) for s, w, n in zip(starts, window, image.shape[1:], strict=True)]
    inside = [slice(s // 2, s // 2 + n) for s, n in zip(short, size, strict=True)]
    for start, logits in _accumulate(image, network, config, starts, weights, axis, mirrors):
        here = [slice(None), *inside]
        here[axis + 1] = slice(inside[axis].start, inside[axis].stop) if short[axis] else slice(None)
        yield Slab(start, axis, logits[tuple(here)])


def _accumulate(
    image: Tensor,
    network: Network,
    config: Config,
    starts: Sequence[Sequence[int]],
    weights: Sequence[Sequence[Tensor]],
    axis: int,
    mirrors: bool,
) -> Iterator[tuple[int, Tensor]]:
    """Weighted sums of windows in a buffer as long as a window; what the next row does not touch leaves it."""
    across = [a for a in range(3) if a != axis]
    places = [list(enumerate(starts[a])) for a in (axis, *across)]
    shape = list(image.shape[1:])
    shape[axis] = config.window[axis]
    buffer: Tensor | None = None
    begin = 0
    order = itertools.product(*places)
    while batch := list(itertools.islice(order, config.batch)):
        indices, corners = [], []
        for along, *rest in batch:
            by_axis = dict(zip((axis, *across), (along, *rest), strict=True))
            indices.append([by_axis[a][0] for a in range(3)])
            corners.append([by_axis[a][1] for a in range(3)])
        windows = torch.stack([image[(slice(None), *_box(c, config.window))] for c in corners])
        logits = _run(network, windows, config.mirror_axes if mirrors else ())
        if buffer is None:
            buffer = torch.zeros((logits.shape[1], *shape), device=logits.device)
        for index, corner, values in zip(indices, corners, logits, strict=True):
            if corner[axis] > begin:
                done = corner[axis] - begin
                yield begin, buffer.narrow(axis + 1, 0, done).clone()
                kept = buffer.narrow(axis + 1, done, shape[axis] - done).clone()
                buffer.zero_().narrow(axis + 1, 0, shape[axis] - done).copy_(kept)
                begin = corner[axis]
            for a in range(3):
                values = values * weights[a][index[a]].to(values.device).view([-1 if b == a else 1 for b in range(3)])
            local = [0 if a == axis else c for a, c in enumerate(corner)]
            buffer[(slice(None), *_box(local, config.window))] += values
    assert buffer is not None
    yield begin, buffer


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))


def _weights(starts: Sequence[int], window: int, length: int) -> list[Tensor]:
    """One window's weights along an axis, for each start: a Gaussian (sigma window / 8) divided by the sum over windows.

    Windows lie on a lattice, so their weights are products over axes and can be normalised axis by axis beforehand.
    """
    bell = np.exp(-0.5 * ((np.arange(window) - (window - 1) / 2) / (window / 8)) ** 2)
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += bell
    return [torch.from_numpy(bell / total[s : s + window]).float() for s in starts]


def _run(network: Network, windows: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """float32 logits `(B, K, I, J, K)` of windows, averaged over flips."""
    flat = windows.shape[-1] == 1
    axes = [a + 2 for a in mirror_axes if windows.shape[a + 2] > 1]
    flips = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
    total: Tensor | None = None
    for flip in flips:
        turned = windows.flip(flip) if flip else windows
        logits = network(turned[..., 0] if flat else turned).float()
        logits = logits[..., None] if flat else logits
        logits = logits.flip(flip) if flip else logits
        total = logits if total is None else total.add_(logits)
    assert total is not None
    return total if len(flips) == 1 else total.div_(len(flips))


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
        held = (
            slab if held is None else Slab(held.start, slab.axis, torch.cat([held.logits, slab.logits], slab.axis + 1))
        )
        end = held.start + held.logits.shape[held.axis + 1]
        for first, count in plan.ready(end, len(held.logits)):
            yield plan.axis, first, _pull_slices(held, plan, first, count, reduce, outside)
        unused = min(max(0, plan.needed_from() - held.start), held.logits.shape[held.axis + 1])
        rest = held.logits.narrow(held.axis + 1, unused, held.logits.shape[held.axis + 1] - unused).clone()
        held = Slab(held.start + unused, held.axis, rest)


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
    logits = geo.pull(held.logits, matrix, shape, fill=float("nan"))
    for channel, value in zip(logits, outside, strict=True):
        channel.nan_to_num_(nan=value)
    return np.asarray(reduce(logits).cpu().numpy())


def sliding_window(
    image: Tensor,
    network: Network,
    window: Sequence[int],
    overlap: float = 0.5,
    *,
    batch: int = 4,
    reduce: Literal["argmax"] | None = None,
) -> Tensor:
    """Run a network over one image by Gaussian-weighted overlapping windows.

    Args:
        image: `(C, I, J, K)` or `(1, C, I, J, K)`.
        network: `(B, C, *window)` -> `(B, K, *window)`.
        window: voxels along each axis.
        overlap: least share of a window that its neighbour covers too.
        batch: windows computed at once.
        reduce: "argmax" keeps the best class of each voxel, so that the logits of the whole image never exist.

    Returns:
        Logits `(K, I, J, K)`, or classes `(I, J, K)` uint8 (int16 above 256 classes); with a leading 1 if the image had one.
    """
    config = Config(window=tuple(window), overlap=overlap, batch=batch)  # type: ignore[arg-type]
    parts, axis = [], 0
    with torch.inference_mode():
        for slab in slabs(image[0] if image.ndim == 5 else image, network, config):
            axis = slab.axis
            dtype = torch.uint8 if len(slab.logits) <= 256 else torch.int16
            parts.append(slab.logits.argmax(0).to(dtype) if reduce else slab.logits)
    result = torch.cat(parts, axis if reduce else axis + 1)
    return result[None] if image.ndim == 5 else result
