import pytest
import torch

from medseg.losses import create_loss


def test_by_the_formula(grid):
    logits, t = grid[0].double() / 10, grid[1]
    p = logits.softmax(1)[:, 1]
    for beta in (0.8, None):
        weight = 15 / 25 if beta is None else beta
        expected = -(weight * t * p.log() + (1 - weight) * (1 - t) * (1 - p).log()).mean()
        torch.testing.assert_close(create_loss("balanced_cross_entropy", beta=beta)(logits, t), expected)


def test_both_sides_of_each_sample_weigh_alike():
    """One voxel of 16 and 15 others, all undecided: the slopes of the two sides sum to nothing."""
    target = torch.zeros(2, 4, 4, dtype=int)
    target[0, 0, 0] = target[1, 0, :] = 1
    logits = torch.zeros(2, 2, 4, 4, requires_grad=True)
    create_loss("balanced_cross_entropy")(logits, target).backward()
    torch.testing.assert_close(logits.grad[:, 1].sum((1, 2)), torch.zeros(2))
    assert logits.grad[0, 1, 0, 0] == pytest.approx(15 * -logits.grad[0, 1, 0, 1].item())


def test_each_overlapping_structure_has_its_own_balance(overlapping):
    logits, target = overlapping
    loss = create_loss("balanced_cross_entropy", activation="sigmoid")
    alone = [loss(logits[:, k : k + 1], target[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(loss(logits, target), torch.stack(alone).mean())
