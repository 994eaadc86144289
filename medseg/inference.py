"""A network over a whole scan as a stream: windows in order along one axis, and finished slabs of logits as they come.

A slab is finished as soon as no later window touches it, and may then be reduced and let go (`medseg.restore`): memory follows
classes x slab, not classes x scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medseg.errors import ConfigError
from medseg.sample import window_starts
from medseg.settings import Settings

Network = Callable[[Tensor], Tensor]


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

    @property
    def stop(self) -> int:
        """Index behind the last one."""
        return self.start + self.logits.shape[self.axis + 1]


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
    short = [max(0, w - n) for w, n in zip(config.window, size, strict=True)]
    image = torch.nn.functional.pad(image, [n for s in reversed(short) for n in (s // 2, s - s // 2)])
    axis, corners = _corners(image.shape[1:], config)
    inside = [slice(s // 2, s // 2 + n) if s else slice(None) for s, n in zip(short, size, strict=True)]
    for start, logits in _accumulate(image, network, config, axis, corners, mirrors):
        yield Slab(start, axis, logits[(slice(None), *inside)])


def _corners(shape: Sequence[int], config: Config) -> tuple[int, list[tuple[int, ...]]]:
    """The axis with most windows, and where all windows begin, in order along it."""
    lattice = [window_starts(n, w, config.overlap) for n, w in zip(shape, config.window, strict=True)]
    axis = int(np.argmax([len(starts) for starts in lattice]))
    return axis, sorted(itertools.product(*lattice), key=lambda corner: corner[axis])


def _weight(window: Sequence[int]) -> Tensor:
    """How much each voxel of a window counts: a Gaussian of sigma window / 8, at least 0.001, as MONAI and nnU-Net have it."""
    bells = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    return torch.einsum("i,j,k->ijk", *bells).clamp_(min=1e-3)


def _accumulate(
    image: Tensor, network: Network, config: Config, axis: int, corners: Sequence[tuple[int, ...]], mirrors: bool
) -> Iterator[tuple[int, Tensor]]:
    """Weighted means in buffers as long as a window; what no later window touches leaves them."""
    shape = [w if a == axis else n for a, (w, n) in enumerate(zip(config.window, image.shape[1:], strict=True))]
    weight, begin = _weight(config.window), 0
    total: Tensor | None = None
    for first in range(0, len(corners), config.batch):
        batch = corners[first : first + config.batch]
        cut = torch.stack([image[(slice(None), *_box(corner, config.window))] for corner in batch])
        logits = _run(network, cut, config.mirror_axes if mirrors else ())
        if total is None:
            weight = weight.to(logits.device)
            total, weights = (torch.zeros((n, *shape), device=logits.device) for n in (logits.shape[1], 1))
        for corner, values in zip(batch, logits * weight, strict=True):
            if corner[axis] > begin:
                count = corner[axis] - begin
                yield begin, _take(total, axis + 1, count).div_(_take(weights, axis + 1, count))
                begin = corner[axis]
            here = (slice(None), *_box([0 if a == axis else c for a, c in enumerate(corner)], config.window))
            total[here] += values
            weights[here] += weight
    assert total is not None
    yield begin, total.div_(weights)


def _take(buffer: Tensor, dim: int, count: int) -> Tensor:
    """The first `count` elements; the rest moves up and zeros follow it."""
    taken, kept = buffer.narrow(dim, 0, count).clone(), buffer.narrow(dim, count, buffer.shape[dim] - count).clone()
    buffer.zero_().narrow(dim, 0, kept.shape[dim]).copy_(kept)
    return taken


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))


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
    if image.ndim == 5 and len(image) != 1:
        raise ConfigError(f"one image at a time: expected (1, C, I, J, K), got {tuple(image.shape)}")
    config = Config(window=tuple(window), overlap=overlap, batch=batch)  # type: ignore[arg-type]
    parts, axis = [], 0
    with torch.inference_mode():
        for slab in slabs(image[0] if image.ndim == 5 else image, network, config):
            axis = slab.axis
            dtype = torch.uint8 if len(slab.logits) <= 256 else torch.int16
            parts.append(slab.logits.argmax(0).to(dtype) if reduce else slab.logits)
    result = torch.cat(parts, axis if reduce else axis + 1)
    return result[None] if image.ndim == 5 else result
