"""Slabs of logits become a mask, probabilities and their variances on the scan's own grid, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medseg.arrays import Array
from medseg.errors import DataError
from medseg.geometry import region
from medseg.inference.prediction import PreparedScan
from medseg.inference.resampling import resample_slabs
from medseg.inference.sliding import Slab, Slabs
from medseg.inference.stitching import Range
from medseg.labels import Labels
from medseg.logits import finite
from medseg.volume import Volume

Blank = Callable[[tuple[int, ...], npt.DTypeLike], Array]


class Outputs:
    """Arrays on a scan's own grid, which are filled as slabs come.

    `mask` holds file values. `likely` holds what is wanted beside it, `(classes, I, J, K)` float32: probabilities of each channel,
    and behind them their variances where the network was sampled (see `medseg.inference.uncertainty`).

    Args:
        scan: as the network sees it.
        labels: what classes mean.
        classes: channels of `likely`; with 0 it is None.
        blank: makes arrays of zeros, from shape and type.
    """

    def __init__(self, scan: PreparedScan, labels: Labels, classes: int, blank: Blank) -> None:
        self.scan, self.labels = scan, labels
        self.maps = 1 if labels.exclusive else labels.channels
        like = labels.decode(np.zeros((self.maps, 0, 0, 0), np.int16))
        self.mask = blank((len(like), *scan.mask_grid.shape), like.dtype)
        self.likely = blank((classes, *scan.mask_grid.shape), np.float32) if classes else None
        if self.likely is not None and labels.exclusive:
            self.likely[0] = 1

    def fill(self, slabs: Slabs, outside: Sequence[float], strips: tuple[int, int]) -> None:
        """Resample slabs into the arrays; `outside` and `strips` as in `medseg.inference.resampling.resample_slabs`."""
        scan = self.scan
        shown = region.part(scan.mask_grid, scan.box)
        for box, part in resample_slabs(slabs, scan.grid, shown, self._kept, outside, strips):
            values = self.labels.decode(part[: self.maps].astype(np.int16, copy=False))
            self.mask[:, *scan.box][:, *box] = values
            if self.likely is not None:
                self.likely[:, *scan.box][:, *box] = part[self.maps :]

    def volume(self, classes: slice) -> Volume | None:
        """Some channels of `likely`; None where there are none."""
        if self.likely is None or not len(part := self.likely[classes]):
            return None
        return Volume(part, self.scan.mask_grid, meta=self.scan.meta)

    def _kept(self, logits: Tensor) -> Tensor:
        scores, variances = logits.tensor_split([self.labels.channels])
        best = self.labels.of_logits(scores)
        if self.likely is None:
            return best.to(torch.int16)
        return torch.cat([best.float(), scores.softmax(0) if self.labels.exclusive else scores.sigmoid(), variances])


def finite_slabs(slabs: Slabs, advice: str) -> Slabs:
    """The same slabs, checked as they come.

    Raises:
        DataError: one holds values that are not numbers; the message ends with the advice.
    """

    def checked(region: Sequence[Range]) -> Iterator[Slab]:
        for slab in slabs(region):
            if not finite(slab.logits):
                raise DataError(f"the model gives values that are not numbers on this scan. {advice}")
            yield slab

    return checked
