"""Slabs on their way home: what becomes of them, and what is no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg import region
from medseg.errors import DataError
from medseg.homing import Home, numbers
from medseg.inference import Slab
from medseg.labels import Labels
from medseg.prediction import Ready
from medseg.restore import Open
from medseg.stitching import Range
from medseg.volume import Geometry

GRID = Geometry((4, 3, 2), np.diag([1.0, 1, 2, 1]))


def two_slabs(logits: Tensor) -> Open:
    def slabs(wanted: Sequence[Range]) -> Iterator[Slab]:
        assert list(wanted) == [(0, 4), (0, 3), (0, 2)]
        yield from (Slab(start, 0, logits[:, start : start + 2]) for start in (0, 2))

    return slabs


def ready(home: Geometry = GRID) -> Ready:
    """A scan whose first two slices along i were cut away, where it is larger than the grid."""
    i, j, k = (slice(n - m, n) for n, m in zip(home.shape, GRID.shape, strict=True))
    return Ready(torch.zeros(1, *GRID.shape), region.part(home, (i, j, k)), home, (i, j, k), {"sform_code": 1}, ())


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_scores_become_values_and_what_follows_them_stays(kept: int) -> None:
    logits = torch.randn(4, *GRID.shape, generator=torch.Generator().manual_seed(0))
    given = logits if kept == 4 else logits[:2]
    home = Home(ready(), Labels.of({"bright": 3}), kept, np.zeros)
    home.fill(two_slabs(given), [0.0] * len(given), (0, 1))
    likely = logits[:2].softmax(0).numpy()
    np.testing.assert_array_equal(home.mask[0], likely.argmax(0) * 3)
    first, second = home.volume(slice(2)), home.volume(slice(2, None))
    assert (first is None, second is None) == (kept == 0, kept < 4)
    if first:
        np.testing.assert_allclose(first.array, likely, atol=1e-6)
        assert first.meta == {"sform_code": 1}
    if second:
        np.testing.assert_array_equal(second.array, logits[2:].numpy())


def test_outside_of_the_box_is_sure_background() -> None:
    home = Home(ready(Geometry((6, 3, 2), GRID.affine)), Labels.of({"bright": 3}), 4, np.zeros)
    home.fill(two_slabs(torch.ones(4, *GRID.shape) * torch.tensor([0.0, 1, 2, 3]).view(4, 1, 1, 1)), [0.0] * 4, (0, 1))
    assert home.likely is not None
    np.testing.assert_array_equal(home.likely[:, :2].reshape(4, -1).T, [[1, 0, 0, 0]] * 12)
    assert not home.mask[:, :2].any()
    assert home.mask[:, 2:].all()


def test_what_is_no_number_is_said_with_advice() -> None:
    logits = torch.zeros(2, *GRID.shape)
    logits[1, 3, 0, 0] = torch.inf
    coming = numbers(two_slabs(logits), "Look again.")([(0, 4), (0, 3), (0, 2)])
    assert next(coming).start == 0
    with pytest.raises(DataError, match=r"no numbers on this scan\. Look again\.$"):
        next(coming)
