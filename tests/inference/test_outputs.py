"""Slabs on the scan's own grid: what becomes of them, and what is no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg.errors import DataError
from medseg.geometry import region
from medseg.inference.outputs import Outputs, finite_slabs
from medseg.inference.prediction import PreparedScan
from medseg.inference.sliding import Slab, Slabs
from medseg.inference.stitching import Range
from medseg.labels import Labels
from medseg.volume import Geometry

GRID = Geometry((4, 3, 2), np.diag([1.0, 1, 2, 1]))


def two_slabs(logits: Tensor) -> Slabs:
    def slabs(wanted: Sequence[Range]) -> Iterator[Slab]:
        assert list(wanted) == [(0, 4), (0, 3), (0, 2)]
        yield from (Slab(start, 0, logits[:, start : start + 2]) for start in (0, 2))

    return slabs


def ready(grid: Geometry = GRID) -> PreparedScan:
    """A scan whose first two slices along i were cut away, where it is larger than the grid."""
    i, j, k = (slice(n - m, n) for n, m in zip(grid.shape, GRID.shape, strict=True))
    return PreparedScan(
        torch.zeros(1, *GRID.shape), region.part(grid, (i, j, k)), grid, (i, j, k), {"sform_code": 1}, ()
    )


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_scores_become_values_and_what_follows_them_stays(kept: int) -> None:
    logits = torch.randn(4, *GRID.shape, generator=torch.Generator().manual_seed(0))
    given = logits if kept == 4 else logits[:2]
    outputs = Outputs(ready(), Labels.of({"bright": 3}), kept, np.zeros)
    outputs.fill(two_slabs(given), [0.0] * len(given), (0, 1))
    likely = logits[:2].softmax(0).numpy()
    np.testing.assert_array_equal(outputs.mask[0], likely.argmax(0) * 3)
    first, second = outputs.volume(slice(2)), outputs.volume(slice(2, None))
    assert (first is None, second is None) == (kept == 0, kept < 4)
    if first:
        np.testing.assert_allclose(first.array, likely, atol=1e-6)
        assert first.meta == {"sform_code": 1}
    if second:
        np.testing.assert_array_equal(second.array, logits[2:].numpy())


def test_outside_of_the_box_is_sure_background() -> None:
    outputs = Outputs(ready(Geometry((6, 3, 2), GRID.affine)), Labels.of({"bright": 3}), 4, np.zeros)
    outputs.fill(
        two_slabs(torch.ones(4, *GRID.shape) * torch.tensor([0.0, 1, 2, 3]).view(4, 1, 1, 1)), [0.0] * 4, (0, 1)
    )
    assert outputs.likely is not None
    np.testing.assert_array_equal(outputs.likely[:, :2].reshape(4, -1).T, [[1, 0, 0, 0]] * 12)
    assert not outputs.mask[:, :2].any()
    assert outputs.mask[:, 2:].all()


def test_what_is_no_number_is_said_with_advice() -> None:
    logits = torch.zeros(2, *GRID.shape)
    logits[1, 3, 0, 0] = torch.inf
    coming = finite_slabs(two_slabs(logits), "Look again.")([(0, 4), (0, 3), (0, 2)])
    assert next(coming).start == 0
    with pytest.raises(DataError, match=r"not numbers on this scan\. Look again\.$"):
        next(coming)
