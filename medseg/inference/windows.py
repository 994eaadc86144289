"""How a scan is covered by windows: their size, their overlap, and what that costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, PositiveInt

from medseg.arrays import Array
from medseg.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

_WORTH = 0.01  # of the windows


class Config(Settings):
    """How a scan is covered by windows.

    Args:
        window: voxels of a window along i, j and k; 1 along k for 2D models.
        overlap: least share of a window that its neighbour covers too, 0 to below 1.
        batch: windows computed at once.
        mirror_axes: axes (0, 1 and 2) that test-time augmentation flips.
        air: windows in which no prepared value exceeds this hold air: they are not computed, and become background. None
            computes all windows.
    """

    window: tuple[PositiveInt, PositiveInt, PositiveInt]
    overlap: float = Field(default=0.5, ge=0, lt=1)
    batch: int = Field(default=4, ge=1)
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    air: float | None = None

    def __str__(self) -> str:
        return f"windows of {' x '.join(map(str, self.window))} voxels, overlap {self.overlap:g}"

    def smaller(self) -> Config | None:
        """Windows that take about half the memory: half the batch, or half the longest side of a single window.

        A side stays a multiple of 16, for networks that halve their maps. None where no side is as long as 64 voxels: a
        window of less than 32 voxels shows too little around what it segments. `air` was measured for the larger windows, and
        is no longer known.
        """
        if self.batch > 1:
            return self.model_copy(update={"batch": self.batch // 2})
        window, side = list(self.window), max(self.window)
        window[window.index(side)] = -(-side // 32) * 16
        return self.model_copy(update={"window": tuple(window), "air": None}) if side >= 64 else None

    def is_air(self, window: Tensor) -> bool:
        """Whether a window of an image holds no tissue."""
        return self.air is not None and window.numel() > 0 and bool(window.amax() <= self.air)

    def cost(self, shape: Sequence[int]) -> float:
        """How often a voxel of an image of this shape is computed, on average."""
        windows = [len(starts) for starts in window_grid(shape, self.window, self.overlap)]
        return float(np.prod(windows) * np.prod(self.window) / np.prod(shape))

    def larger(self, voxels: float, longest: Sequence[int]) -> Config:
        """Windows of about so many voxels, in the same proportions; the batch shrinks as they grow.

        Args:
            voxels: of a window.
            longest: sides beyond which a window would hold nothing but padding.
        """
        growing = [n > 1 for n in self.window]
        factor = max(1.0, (voxels / float(np.prod(self.window))) ** (1 / max(1, sum(growing))))
        sides = [
            max(w, min(int(w * factor / 8) * 8, -(-int(n) // 8) * 8)) if grows else w
            for w, n, grows in zip(self.window, longest, growing, strict=True)
        ]
        batch = max(1, int(self.batch * np.prod(self.window) / np.prod(sides)))
        return self.model_copy(update={"window": tuple(sides), "batch": batch})


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First indices of windows along one axis: as few as the overlap allows, evenly spaced, first and last flush.

    Args:
        length: of the axis, in voxels.
        window: its length, in voxels; a window longer than the axis is the only one and starts at 0.
        overlap: least share of a window that its neighbour covers too, 0 to below 1.
    """
    if length <= window:
        return (0,)
    last = length - window
    step = max(1, int(window * (1 - overlap) + 1e-6))  # 40 * (1 - 0.9) is 3.9999999999999996
    gaps = math.ceil(last / step)
    return tuple(n * last // gaps for n in range(gaps + 1))


def window_grid(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[int, ...]]:
    """First indices of windows along each axis of an image; see `window_starts`."""
    return [window_starts(n, w, overlap) for n, w in zip(shape, window, strict=True)]


def box(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """Where a box lies in all channels of `(C, I, J, K)`, from its first index and size along i, j and k."""
    return (slice(None), *(slice(s, s + n) for s, n in zip(start, size, strict=True)))


def find_air(window: Sequence[int], cases: Iterable[tuple[Array, Array]]) -> tuple[float | None, float]:
    """The value that windows without tissue do not exceed, as far as labelled cases show it.

    Args:
        window: voxels along i, j and k.
        cases: prepared image `(C, I, J, K)` and target `(T, I, J, K)`, 0 where there is no structure.

    Returns:
        The value halfway between the emptiest window and the emptiest one that touches a structure, and the share of windows
        that it leaves out; None and 0 where that share is under 1 %.
    """
    highest, touching = [], []
    for image, target in cases:
        for corner in itertools.product(*window_grid(image.shape[1:], window, 0.5)):
            at = box(corner, window)
            highest.append(float(image[at].max()))
            touching.append(bool(target[at].any()))
    values, full = np.array(highest), np.array(touching)
    if not full.any() or full.all():
        return None, 0.0
    air = float(values[~full].min() + values[full].min()) / 2
    share = float((values <= air).mean()) if air < values[full].min() else 0.0
    return (air, share) if share >= _WORTH else (None, 0.0)
