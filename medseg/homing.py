"""The last stretch: slabs of logits become a mask, probabilities and their variances on the scan's own grid, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medseg import region
from medseg.errors import DataError
from medseg.inference import Slab
from medseg.labels import Labels
from medseg.logits import finite
from medseg.prediction import Ready
from medseg.restore import Open, restore
from medseg.stitching import Range
from medseg.volume import Volume

Array = npt.NDArray[Any]
Blank = Callable[[tuple[int, ...], npt.DTypeLike], Array]


class Home:
    """Arrays on a scan's own grid, which are filled as slabs come.

    `mask` holds file values. `likely` holds what is wanted beside it, `(classes, I, J, K)` float32: probabilities of each channel,
    and behind them their variances where the network was sampled (see `medseg.uncertainty`).

    Args:
        ready: the scan.
        labels: what classes mean.
        classes: channels of `likely`; with 0 it is None.
        blank: makes arrays of zeros, from shape and type.
    """

    def __init__(self, ready: Ready, labels: Labels, classes: int, blank: Blank) -> None:
        self.ready, self.labels = ready, labels
        self.maps = 1 if labels.exclusive else labels.channels
        like = labels.decode(np.zeros((self.maps, 0, 0, 0), np.int16))
        self.mask = blank((len(like), *ready.home.shape), like.dtype)
        self.likely = blank((classes, *ready.home.shape), np.float32) if classes else None
        if self.likely is not None and labels.exclusive:
            self.likely[0] = 1

    def fill(self, slabs: Open, outside: Sequence[float], strips: tuple[int, int]) -> None:
        """Bring slabs home; `outside` and `strips` as for `medseg.restore.restore`."""
        ready = self.ready
        shown = region.part(ready.home, ready.box)
        for box, part in restore(slabs, ready.grid, shown, self._kept, outside, strips):
            values = self.labels.decode(part[: self.maps].astype(np.int16, copy=False))
            self.mask[:, *ready.box][:, *box] = values
            if self.likely is not None:
                self.likely[:, *ready.box][:, *box] = part[self.maps :]

    def volume(self, classes: slice) -> Volume | None:
        """Some channels of `likely`; None where there are none."""
        if self.likely is None or not len(part := self.likely[classes]):
            return None
        return Volume(part, self.ready.home, meta=self.ready.meta)

    def _kept(self, logits: Tensor) -> Tensor:
        scores, variances = logits.tensor_split([self.labels.channels])
        best = self.labels.of_logits(scores)
        if self.likely is None:
            return best.to(torch.int16)
        return torch.cat([best.float(), scores.softmax(0) if self.labels.exclusive else scores.sigmoid(), variances])


def numbers(slabs: Open, advice: str) -> Open:
    """Slabs, as long as they hold numbers.

    Raises:
        DataError: one does not; it ends with the advice.
    """

    def checked(region: Sequence[Range]) -> Iterator[Slab]:
        for slab in slabs(region):
            if not finite(slab.logits):
                raise DataError(f"the model gives values that are no numbers on this scan. {advice}")
            yield slab

    return checked
