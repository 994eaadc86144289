import math

import pytest
import torch
import torch.nn.functional as F

from medseg.losses import create_loss


def test_wholly_wrong_pixel():
    certain = math.log((1 - 1e-9) / 1e-9)
    target = torch.zeros(1, 5, 5, dtype=int)
    logits = torch.stack([torch.full((1, 5, 5), certain), torch.zeros(1, 5, 5)], 1).double()
    logits[0, :, 2, 3] = logits[0, :, 2, 3].flip(0)
    assert create_loss("cross_entropy")(logits, target).item() == pytest.approx(20.72 / 25, abs=2e-4)
    total = create_loss("cross_entropy", reduction="sum")(logits, target)
    assert total.item() == pytest.approx(20.723, abs=1e-3)


def test_plain_and_weighted_equal_torch(batch):
    logits, target = batch
    target[0, :2] = -1
    torch.testing.assert_close(
        create_loss("cross_entropy")(logits, target), F.cross_entropy(logits, target, ignore_index=-1)
    )
    weights = (0.2, 1.0, 3.0)
    weighted = create_loss("cross_entropy", class_weights=weights, reduction="weighted_mean")(logits, target)
    torch.testing.assert_close(weighted, F.cross_entropy(logits, target, torch.tensor(weights), ignore_index=-1))


def test_soft_targets_equal_torch(batch):
    logits, _ = batch
    target = torch.rand(logits.shape).softmax(1)
    torch.testing.assert_close(create_loss("cross_entropy")(logits, target), F.cross_entropy(logits, target))


def test_sigmoid_equals_torch(overlapping):
    logits, target = overlapping
    expected = F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=torch.tensor(3.0))
    torch.testing.assert_close(create_loss("cross_entropy", activation="sigmoid", beta=3)(logits, target), expected)


@pytest.mark.parametrize("balanced", [False, True])
def test_beta_weighs_structures(grid, balanced):
    logits, t = grid[0].double() / 10, grid[1]
    value = create_loss("cross_entropy", beta=0.8, balanced=balanced)(logits, t)
    p = logits.softmax(1)[:, 1]
    rest = 0.2 if balanced else 1.0
    expected = -(0.8 * t * p.log() + rest * (1 - t) * (1 - p).log()).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
