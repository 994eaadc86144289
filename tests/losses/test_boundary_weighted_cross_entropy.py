import math

import pytest
import torch

from medseg.losses import LossContext, create_loss


@pytest.mark.parametrize(("width_mm", "near"), [(0.0, 2), (2.0, 2), (4.0, 4)])
def test_one_row_by_hand(width_mm, near):
    """Voxels of 2 mm along the row: one beside the boundary on either side, or two within 4 mm."""
    target = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    loss = create_loss("boundary_weighted_cross_entropy", width_mm=width_mm)
    value = loss(torch.zeros(1, 2, 1, 6), target, LossContext(spacing_mm=(9.0, 2.0)))
    assert value.item() == pytest.approx(math.log(2) * (near + 0.1 * (6 - near)) / 6)


def test_no_boundary_is_all_interior():
    loss = create_loss("boundary_weighted_cross_entropy", width_mm=5)
    value = loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=int))
    assert value.item() == pytest.approx(0.1 * math.log(2))


def test_each_overlapping_structure_has_its_own_boundary(overlapping):
    logits, target = overlapping
    loss = create_loss("boundary_weighted_cross_entropy", activation="sigmoid")
    alone = [loss(logits[:, k : k + 1], target[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(loss(logits, target), torch.stack(alone).mean())


@pytest.mark.parametrize(("width_mm", "near"), [(0.0, 0), (2.0, 2), (3.0, 4)])
def test_what_is_ignored_has_no_boundary(width_mm, near):
    """From the third voxel to the fifth are two steps, from their neighbours three."""
    target = torch.tensor([[[0, 0, 0, -1, 1, 1]]])
    loss = create_loss("boundary_weighted_cross_entropy", width_mm=width_mm)
    value = loss(torch.zeros(1, 2, 1, 6), target)
    assert value.item() == pytest.approx(math.log(2) * (near + 0.1 * (5 - near)) / 5)
