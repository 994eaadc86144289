import pytest
import torch
import torch.nn.functional as F

from medseg.losses import create_loss


def test_two_exclusive_classes_are_cross_entropy(grid):
    logits, target = grid[0] / 20, grid[1]
    for background in (False, True):
        binary = create_loss("binary_cross_entropy", include_background=background)
        torch.testing.assert_close(binary(logits, target), create_loss("cross_entropy")(logits, target))


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_sigmoid_equals_torch(overlapping, beta):
    logits, target = overlapping
    expected = F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=torch.tensor(beta))
    loss = create_loss("binary_cross_entropy", activation="sigmoid", beta=beta)
    torch.testing.assert_close(loss(logits, target), expected)


def test_each_exclusive_structure_against_all_else(batch):
    logits, target = batch
    p = logits.softmax(1)
    expected = [F.binary_cross_entropy(p[:, k], (target == k).float()) for k in (1, 2)]
    torch.testing.assert_close(create_loss("binary_cross_entropy")(logits, target), torch.stack(expected).mean())
