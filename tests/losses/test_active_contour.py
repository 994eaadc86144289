import pytest
import torch

from medseg.losses import LossContext, create_loss


def certain(answer: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - answer, answer], 1) * 100.0 - 50


def test_a_slab_by_hand():
    """An edge of 6 voxels among 48, 2 mm apart; 6 voxels are missed."""
    target = torch.zeros(1, 8, 6, dtype=int)
    target[:, :4] = 1
    answer = target.clone()
    answer[:, 3] = 0
    spacing = LossContext(spacing_mm=(2.0, 1.0))
    loss = create_loss("active_contour", region_weight=3)
    assert loss(certain(target), target, spacing).item() == pytest.approx(6 / 2 / 48, abs=2e-4)
    assert loss(certain(answer), target, spacing).item() == pytest.approx((6 / 2 + 3 * 6) / 48, abs=2e-4)


def test_a_smooth_edge_is_shorter_than_a_ragged_one():
    target = torch.zeros(1, 12, 12, dtype=int)
    target[:, :6] = 1
    ragged = target.clone()
    ragged[:, 5, ::2], ragged[:, 6, ::2] = 0, 1
    smooth = target.clone()
    smooth[:, 6] = 1  # as many voxels are wrong
    costs = [create_loss("active_contour")(certain(answer), target) for answer in (smooth, ragged)]
    assert costs[0] < costs[1]


def test_without_length_it_is_the_squared_error_of_a_mask(grid):
    logits, target = grid[0] / 20, grid[1]
    p = logits.softmax(1)[:, 1]
    flat = create_loss("active_contour", region_weight=1e6)(logits, target) / 1e6
    torch.testing.assert_close(flat, torch.where(target == 1, 1 - p, p).mean(), rtol=1e-4, atol=0)
