import pytest
import torch
from monai.losses import FocalLoss

from medseg.losses import create_loss


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_without_focus_it_is_balanced_cross_entropy(overlapping, activation):
    logits, memberships = overlapping
    target = memberships.argmax(1) if activation == "softmax" else memberships
    focal = create_loss("focal", gamma=0, alpha=0.3, activation=activation)
    balanced = create_loss("balanced_cross_entropy", beta=0.3, activation=activation)
    torch.testing.assert_close(focal(logits, target), balanced(logits, target))


def test_two_classes_by_the_formula(grid):
    logits, target = grid[0] / 20, grid[1]
    p, t = logits.softmax(1)[:, 1], target
    expected = -(0.25 * (1 - p) ** 2 * t * p.log() + 0.75 * p**2 * (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(create_loss("focal")(logits, target), expected)
    difference = (logits[:, 1:] - logits[:, :1]).contiguous()
    torch.testing.assert_close(create_loss("focal", activation="sigmoid")(difference, target), expected)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_softmax_equals_monai(batch, alpha):
    logits, target = batch
    oracle = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2, alpha=alpha)
    expected = oracle(logits, target[:, None]) * 3  # monai divides by the number of classes too
    torch.testing.assert_close(create_loss("focal", alpha=alpha)(logits, target), expected, atol=1e-5, rtol=0)


def test_sigmoid_equals_monai(overlapping):
    loss = create_loss("focal", activation="sigmoid", gamma=1.5, alpha=0.4)
    torch.testing.assert_close(loss(*overlapping), FocalLoss(gamma=1.5, alpha=0.4)(*overlapping), atol=1e-5, rtol=0)


def test_a_root_as_focus_has_a_slope_where_the_answer_is_certain(grid):
    logits, target = grid[0].requires_grad_(), grid[1]
    create_loss("focal", gamma=0.5)(logits, target).backward()
    assert logits.grad.isfinite().all()
