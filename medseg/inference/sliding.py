"""A network over a whole scan as a stream: windows in order along one axis, and finished slabs of logits as they come.

A slab is finished as soon as no later window touches it, and may then be reduced and let go (`medseg.inference.resampling`): memory follows
classes x slab, not classes x scan.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from medseg import memory
from medseg.errors import ConfigError
from medseg.inference.stitching import Range, Sums, divided
from medseg.inference.windows import Config, box, window_grid
from medseg.logits import best_class
from medseg.settings import parse

Network = Callable[[Tensor], Tensor]
Corner = tuple[int, ...]
_SUMS_BYTES = 1 << 30
_LOGITS = 1 << 24  # of a batch of windows: 64 MB


@dataclass(frozen=True)
class Slab:
    """Logits `(K, I, J, K)` that no later window changes; they begin at index `start` of axis `axis` of the image."""

    start: int
    axis: int
    logits: Tensor

    @property
    def stop(self) -> int:
        """Index behind the last one."""
        return self.start + self.logits.shape[self.axis + 1]


Slabs = Callable[[Sequence[Range]], Iterator[Slab]]  # those that cover a region


@dataclass
class Work:
    """What was computed: windows, mirrored ones not counted again, and their voxels; and windows of air that were left out."""

    windows: int = 0
    voxels: int = 0
    air: int = 0

    def add(self, windows: int, air: int, config: Config) -> None:
        """Windows that will be computed, and others that will not."""
        self.windows, self.air = self.windows + windows, self.air + air
        self.voxels += windows * math.prod(config.window)

    @property
    def air_share(self) -> float:
        """Of all windows."""
        return self.air / max(1, self.windows + self.air)


@dataclass(frozen=True)
class Stream:
    """A network over an image by overlapping windows, in parts and as often as one likes.

    Args:
        image: `(C, I, J, K)` on any device; windows are moved to the device that `network` wants by itself.
        network: `(B, C, *window)` -> logits `(B, K, *window)`; the last axis is left out where the window's is 1.
        config: windows. Where the image is shorter than the window, it is padded with 0 (the mean of a normalised image).
        mirrors: average over all flips of `config.mirror_axes`.
        means: of the windows; else their weighted sums, with the same best class, which are gone when the next slab comes.
        background: logits of each class where all windows are of air (see `windows.Config.air`); None computes those too.
        work: is added up.
    """

    image: Tensor
    network: Network
    config: Config
    mirrors: bool = False
    means: bool = True
    background: Sequence[float] | None = None
    work: Work = field(default_factory=Work)

    def __call__(self, region: Sequence[Range] | None = None) -> Iterator[Slab]:
        """Finished logits in order along the axis that is most windows long: slabs that cover a region once, in float32.

        Args:
            region: first and last index (exclusive) along each axis, by default all of the image. The values are the same.
        """
        if self.image.device.type == "cpu":
            memory.keep_heap()  # what a network gives for a window is as large each time
        image, before = _padded(self.image, self.config.window)
        wanted = region or [(0, n) for n in self.image.shape[1:]]
        wanted = [(b + start, b + stop) for b, (start, stop) in zip(before, wanted, strict=True)]
        axis = _axes(image.shape[1:], self.config.window)[0]
        corners = self._corners(image, wanted, axis)
        sums: Sums | None = None
        for corner, logits in _windows(image, self.network, self.config, corners, self.mirrors):
            sums = sums or Sums(self.config.window, wanted, axis, len(logits), logits.device, self.background)
            for start, piece in sums.leave(corner[axis], means=self.means):
                yield Slab(start - before[axis], axis, piece)
            sums.add(corner, logits)
            del logits
        if sums is None:  # all is air
            sums = Sums(self.config.window, wanted, axis, len(self.background or ()), image.device, self.background)
        for start, piece in sums.leave(sums.end, means=self.means):
            yield Slab(start - before[axis], axis, piece)

    def _corners(self, image: Tensor, wanted: Sequence[Range], axis: int) -> list[Corner]:
        """Where the windows that touch a region begin, in order along an axis; not those of air."""
        window = self.config.window
        starts = window_grid(image.shape[1:], window, self.config.overlap)
        touching = [
            [s for s in along if s + w > a and s < b] for along, w, (a, b) in zip(starts, window, wanted, strict=True)
        ]
        every = sorted(itertools.product(*touching), key=lambda corner: corner[axis])
        skips = self.background is not None
        kept = [corner for corner in every if not (skips and self.config.is_air(image[box(corner, window)]))]
        self.work.add(len(kept), len(every) - len(kept), self.config)
        return kept

    def collect(self, make: Callable[[Tensor], Tensor], classes: int = 1) -> Tensor:
        """What a function makes of the logits of the whole image, `(K, I, J, K)`, where it makes as many channels of each slab.

        Args:
            make: logits `(K, I, J, K)` -> a tensor of the same size `(n, I, J, K)`.
            classes: of the network; memory follows them and not the image.
        """
        result: Tensor | None = None
        for region in self.regions(classes):
            for slab in self(region):
                part = make(slab.logits)
                if result is None:
                    result = part.new_empty((len(part), *self.image.shape[1:]))
                place = [slice(*ends) for ends in region]
                place[slab.axis] = slice(slab.start, slab.stop)
                result[:, *place] = part
        assert result is not None
        return result

    def strips(self, classes: int) -> tuple[int, int]:
        """Along which axis, and into how many regions the image is divided so that the sums of each take 1 GB at most.

        Windows on a border between regions are computed for both: a region is never shorter than half a window.
        """
        shape, window = self.image.shape[1:], self.config.window
        along, across, _ = _axes(shape, window)
        sums = 4.0 * classes * math.prod(shape) * min(1.0, window[along] / shape[along])
        most = max(1, 2 * shape[across] // window[across])
        return across, min(most, math.ceil(sums / _SUMS_BYTES))

    def regions(self, classes: int) -> Iterator[list[Range]]:
        """The regions of `strips`, which together cover the image once."""
        (across, count), whole = self.strips(classes), [(0, n) for n in self.image.shape[1:]]
        for ends in memory.one_by_one(divided(whole[across][1], count)):
            yield [*whole[:across], ends, *whole[across + 1 :]]


def _axes(shape: Sequence[int], window: Sequence[int]) -> list[int]:
    """The axes, those first that are most windows long: windows move along the first, and the second divides into regions."""
    return sorted(range(3), key=lambda axis: -shape[axis] / window[axis])


def _padded(image: Tensor, window: Sequence[int]) -> tuple[Tensor, list[int]]:
    """An image at least as long as its windows, and how much of it comes before its first voxel along each axis."""
    short = [max(0, w - n) for w, n in zip(window, image.shape[1:], strict=True)]
    if any(short):  # padding by nothing would copy the image
        image = torch.nn.functional.pad(image, [n for s in reversed(short) for n in (s // 2, s - s // 2)])
    return image, [s // 2 for s in short]


def _windows(
    image: Tensor, network: Network, config: Config, corners: Sequence[Corner], mirrors: bool
) -> Iterator[tuple[Corner, Tensor]]:
    """Logits `(K, *window)` of each window, computed in batches that do not hold more than `_LOGITS` at once."""
    flips, first, most = _flips(config if mirrors else None), 0, 1
    while first < len(corners):
        batch = corners[first : first + max(1, most // len(flips))]
        cut = torch.stack([image[box(corner, config.window)] for corner in batch])
        logits = _run(network, cut, flips, most)
        first, most = first + len(batch), max(1, min(config.batch, _LOGITS // logits[0].numel()))
        yield from zip(batch, logits, strict=True)
        del logits  # before the next ones are computed


def _flips(config: Config | None) -> list[tuple[int, ...]]:
    """Axes of `(B, C, I, J, K)` to flip, in all ways; the first flips none."""
    axes = [a + 2 for a in range(3) if config and a in config.mirror_axes and config.window[a] > 1]
    return [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]


def _run(network: Network, windows: Tensor, flips: Sequence[tuple[int, ...]], most: int) -> Tensor:
    """float32 logits `(B, K, I, J, K)` of windows, averaged over flips; at most so many at once, or all windows of one flip."""
    if len(flips) == 1:
        return _logits(network, windows)
    step, total = max(1, most // len(windows)), torch.zeros(())
    for first in range(0, len(flips), step):
        some = flips[first : first + step]
        logits = _logits(network, torch.cat([windows.flip(flip) for flip in some]))
        turned = zip(some, logits.chunk(len(some)), strict=True)
        total = torch.stack([part.flip(flip) for flip, part in turned]).sum(0).add_(total.to(logits.device))
    return total.div_(len(flips))


def _logits(network: Network, windows: Tensor) -> Tensor:
    logits = network(windows[..., 0])[..., None] if windows.shape[-1] == 1 else network(windows)
    return logits.float()


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
        network: `(B, C, *window)` -> logits `(B, N, *window)` of N classes.
        window: voxels along each axis.
        overlap: least share of a window that its neighbour covers too.
        batch: windows computed at once.
        reduce: "argmax" keeps the best class of each voxel, so that the logits of the whole image never exist.

    Returns:
        Logits `(N, I, J, K)`, or classes `(I, J, K)` uint8 (int16 above 256 classes); with a leading 1 if the image had one.

    Raises:
        ConfigError: the image has other axes, or a setting is out of its range.
    """
    shape = tuple(image.shape)
    if len(shape) not in (4, 5) or (len(shape) == 5 and shape[0] != 1) or 0 in shape or not isinstance(image, Tensor):
        what = f"a {type(image).__name__} of {shape}"
        raise ConfigError(f"one image at a time: expected a tensor (C, I, J, K) or (1, C, I, J, K), got {what}")
    if reduce not in (None, "argmax"):
        raise ConfigError(f"sliding_window.reduce: expected None or 'argmax', got {reduce!r}")
    config = parse(Config, {"window": window, "overlap": overlap, "batch": batch}, "sliding_window")
    image, lead = (image[0], (1,)) if image.ndim == 5 else (image, ())
    with torch.inference_mode():
        stream = Stream(image, network, config, means=reduce is None)
        result = stream.collect(lambda logits: best_class(logits)[None] if reduce else logits)
    return result.reshape(*lead, *(result[0] if reduce else result).shape)
