import pytest
import torch

from medseg.losses import create_loss


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_minimum_depends_on_the_number_of_classes(alpha):
    target = torch.arange(4).view(1, 4, 1).expand(1, 4, 6)
    logits = torch.nn.functional.one_hot(target, 4).movedim(-1, 1) * 100.0
    assert create_loss("combo", alpha=alpha)(logits, target).item() == pytest.approx(-(1 - alpha) * 3, abs=1e-6)
    every = create_loss("combo", alpha=alpha, include_background=True)
    assert every(logits, target).item() == pytest.approx(-(1 - alpha) * 4, abs=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.3, 0.8)])
def test_two_classes_by_the_formula(grid, alpha, beta):
    logits, target = grid[0] / 20, grid[1]
    p, t = logits.softmax(1)[:, 1], target
    entropy = -(beta * t * p.log() + (1 - beta) * (1 - t) * (1 - p).log()).mean()
    dice = (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    value = create_loss("combo", alpha=alpha, beta=beta)(logits, target)
    torch.testing.assert_close(value, alpha * entropy - (1 - alpha) * dice)


def test_low_beta_punishes_what_is_invented(grid):
    logits, target = grid
    every, none = torch.zeros_like(logits), torch.zeros_like(logits)
    every[:, 1], none[:, 0] = 5, 5
    low, high = (create_loss("combo", alpha=1, beta=beta) for beta in (0.1, 0.9))
    assert low(every, target) > low(none, target)
    assert high(every, target) < high(none, target)


def test_certain_and_wrong_costs_its_distance():
    """ln(1 - p) stays exact where p rounds to 1, so that such a voxel still has a slope."""
    logits = torch.tensor([-50.0, 50.0, -40.0]).view(1, 3, 1, 1).requires_grad_()
    value = create_loss("combo", alpha=1, class_weights=(0, 1, 0))(logits, torch.zeros(1, 1, 1, dtype=int))
    value.backward()
    assert value.item() == pytest.approx(0.5 * 90, rel=1e-5)
    assert logits.grad[0, 1, 0, 0].item() == pytest.approx(0.5)
