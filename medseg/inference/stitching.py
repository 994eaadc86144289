"""Overlapping windows made one: Gaussian-weighted sums, held for no more of a scan than one window is long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from medseg.inference.windows import box

Range = tuple[int, int]
_PIECE = 1 << 22  # sums that leave at once: 16 MB stay in the processor's cache on their way through what follows


def weight(window: Sequence[int]) -> Tensor:
    """How much each voxel of a window counts: a Gaussian of sigma window / 8, at least 0.001, as MONAI and nnU-Net have it."""
    bells = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    return torch.einsum("i,j,k->ijk", *bells).clamp_(min=1e-3)


class Sums:
    """Sums over windows in a ring, as long as a window along the axis that they move on.

    Args:
        window: voxels along i, j and k.
        region: first and last index (exclusive) that is wanted along each axis; the rest of windows is left out.
        axis: along which windows come in order.
        classes: channels of the logits.
        device: of the logits.
        background: means of each class where no window comes; None where windows cover the region.
    """

    def __init__(
        self,
        window: Sequence[int],
        region: Sequence[Range],
        axis: int,
        classes: int,
        device: torch.device,
        background: Sequence[float] | None = None,
    ) -> None:
        self.region, self.axis = region, axis
        self.begin, self.end = region[axis]
        self.length = min(window[axis], self.end - self.begin)
        ring = [self.length if a == axis else stop - start for a, (start, stop) in enumerate(region)]
        self.weight = weight(window).to(device)
        self.total, self.weights = (torch.zeros((n, *ring), device=device) for n in (classes, 1))
        self.background = None if background is None else torch.tensor(background, device=device).view(-1, 1, 1, 1)

    def add(self, corner: Sequence[int], logits: Tensor) -> None:
        """Add the logits `(K, *window)` of the window that begins at a corner; what lies before it has left."""
        low = [max(c, start) for c, (start, _) in zip(corner, self.region, strict=True)]
        high = [min(c + n, stop) for c, n, (_, stop) in zip(corner, self.weight.shape, self.region, strict=True)]
        split = low[self.axis] + self.length - self._place(low[self.axis])  # where the ring begins anew
        for start, stop in ((low[self.axis], min(split, high[self.axis])), (split, high[self.axis])):
            if start < stop:
                low[self.axis], high[self.axis] = start, stop
                self._add(corner, low, high, logits)

    def _add(self, corner: Sequence[int], low: Sequence[int], high: Sequence[int], logits: Tensor) -> None:
        size = [b - a for a, b in zip(low, high, strict=True)]
        part = box([a - c for a, c in zip(low, corner, strict=True)], size)
        at = [self._place(a) if n == self.axis else a - self.region[n][0] for n, a in enumerate(low)]
        self.total[box(at, size)].addcmul_(logits[part], self.weight[part[1:]])
        self.weights[box(at, size)].add_(self.weight[part[1:]])

    def _place(self, index: int) -> int:
        return (index - self.region[self.axis][0]) % self.length

    def leave(self, until: int, *, means: bool = True) -> Iterator[tuple[int, Tensor]]:
        """First index and logits of pieces up to an index, which make room for what comes.

        Args:
            until: no later window touches what lies before it.
            means: of the windows; else their weighted sums, with the same best class, in memory that is used again after
                the next piece is asked for.
        """
        dim, most = self.axis + 1, max(1, _PIECE * self.length // self.total.numel())
        if self.axis == 2:  # neighbours in memory, which are quick in sixteens alone
            most = max(16, most // 16 * 16)
        while self.begin < min(until, self.end):
            place = self._place(self.begin)
            count = min(until - self.begin, self.end - self.begin, self.length - place, most)
            total, weights = (sums.narrow(dim, place, count) for sums in (self.total, self.weights))
            yield self.begin, self._means(total, weights) if means else total
            total.zero_()
            weights.zero_()
            self.begin += count

    def _means(self, total: Tensor, weights: Tensor) -> Tensor:
        means = total / weights
        return means if self.background is None else torch.where(weights > 0, means, self.background)


def divided(length: int, parts: int) -> list[Range]:
    """An axis in parts of about one length, as many as asked for or as it has indices: first and last index (exclusive)."""
    parts = min(parts, length)
    return [(n * length // parts, (n + 1) * length // parts) for n in range(parts)]
