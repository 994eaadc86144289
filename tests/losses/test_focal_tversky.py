import pytest
import torch

from medseg.losses import create_loss

NAMES = ("focal_tversky", "tversky")


def test_worked_example(grid):
    value = create_loss("focal_tversky")(*grid).item()
    assert value == pytest.approx((1 - 7 / (7 + 0.3 * 1 + 0.7 * 3)) ** 0.75, abs=1e-4)


def test_without_focus_it_is_tversky(batch):
    torch.testing.assert_close(create_loss("focal_tversky", gamma=1)(*batch), create_loss("tversky")(*batch))


def test_a_bad_structure_keeps_more_of_the_slope_than_a_good_one(grid):
    """With gamma over 1 the loss is steeper than Tversky's where it is low, and flatter where it is high."""
    target = grid[1]
    answer = torch.stack([1 - target, target], 1).float()
    slopes = []
    for certainty in (4.0, -4.0):
        logits = (certainty * answer).requires_grad_()
        each = [torch.autograd.grad(create_loss(name)(logits, target), logits)[0].abs().sum() for name in NAMES]
        slopes.append((each[0] / each[1]).item())
    assert slopes[0] > 1 > slopes[1]


def test_nothing_to_find_and_nothing_found_has_a_slope():
    logits = torch.tensor([60.0, -60.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4).clone().requires_grad_()
    value = create_loss("focal_tversky")(logits, torch.zeros(1, 4, 4, dtype=int))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.isfinite().all()
