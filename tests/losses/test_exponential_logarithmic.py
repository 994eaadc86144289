import math

import pytest
import torch

from medseg.losses import create_loss


@pytest.mark.parametrize("gammas", [(1.0, 1.0), (0.3, 0.3), (2.0, 1.5)])
def test_by_the_formula(grid, gammas):
    """Voxel by voxel, on 10 of 25 pixels: weights sqrt(25 / 10) and sqrt(25 / 15)."""
    logits, target = grid[0].double() / 20, grid[1]
    p = logits.softmax(1)[0]
    dice = (2 * (p[1] * target).sum() + 1) / (p[1].sum() + target.sum() + 1)
    entropy = 0.0
    for place in torch.cartesian_prod(torch.arange(5), torch.arange(5)):
        i, j = place.tolist()
        label = int(target[0, i, j])
        weight = math.sqrt(25 / (10 if label else 15))
        entropy += weight * (-math.log(p[label, i, j])) ** gammas[1] / 25
    expected = 0.8 * (-math.log(dice)) ** gammas[0] + 0.2 * entropy
    loss = create_loss("exponential_logarithmic", gamma_dice=gammas[0], gamma_ce=gammas[1])
    assert loss(logits, target).item() == pytest.approx(expected)


def test_the_rare_class_weighs_more():
    target = torch.zeros(1, 8, 8, dtype=int)
    target[0, 0, 0] = 1
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    create_loss("exponential_logarithmic", dice_weight=0)(logits, target).backward()
    assert logits.grad[0, 1, 0, 0].abs() == pytest.approx(math.sqrt(63) * logits.grad[0, 1, 4, 4].abs())


def test_a_root_has_a_slope_where_the_answer_is_certain(grid):
    logits, target = grid[0].requires_grad_(), grid[1]
    create_loss("exponential_logarithmic", gamma_ce=0.3, gamma_dice=0.3)(logits, target).backward()
    assert logits.grad.isfinite().all()


def test_the_truth_costs_nothing_whatever_the_powers(grid):
    target = grid[1]
    truth = torch.stack([1 - target, target], 1) * 400.0
    assert create_loss("exponential_logarithmic", gamma_ce=0.1, gamma_dice=0.3)(truth, target).item() == 0
