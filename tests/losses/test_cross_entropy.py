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


def test_beta_weighs_structures(grid):
    logits, t = grid[0].double() / 10, grid[1]
    p = logits.softmax(1)[:, 1]
    expected = -(0.8 * t * p.log() + (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(create_loss("cross_entropy", beta=0.8)(logits, t), expected)


def test_inverse_frequency_is_the_mean_over_classes_of_the_mean_over_their_voxels(batch):
    logits, target = batch
    each = F.cross_entropy(logits, target, reduction="none")
    expected = sum(each[target == k].mean() for k in range(3))
    torch.testing.assert_close(create_loss("cross_entropy", frequency="inverse")(logits, target), expected)


def test_median_frequency_by_hand():
    """Class 1 fills 1/4 of the one sample that has it, class 0 7/8 of both, class 2 is absent: the median is 9/16."""
    target = torch.zeros(2, 4, 4, dtype=int)
    target[0, 0] = 1
    logits = torch.zeros(2, 3, 4, 4)
    value = create_loss("cross_entropy", frequency="median", reduction="sum")(logits, target).item()
    assert value == pytest.approx(math.log(3) * (28 * (9 / 16) / (7 / 8) + 4 * (9 / 16) / (1 / 4)), rel=1e-5)


@pytest.mark.parametrize("frequency", ["inverse", "median"])
def test_frequency_of_overlapping_structures(overlapping, frequency):
    """In each channel, the rarer side weighs more; with "median" both sides together as much as without."""
    logits, target = overlapping[0].detach(), overlapping[1]
    loss = create_loss("cross_entropy", activation="sigmoid", frequency=frequency)
    each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
    scale = 0.5 if frequency == "median" else 1.0
    sides = [[each[:, k][target[:, k] == side].mean() for side in (0, 1)] for k in range(3)]
    torch.testing.assert_close(loss(logits, target), scale * torch.tensor(sides).sum() / 3)


@pytest.mark.parametrize("frequency", ["inverse", "median"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_frequency_of_what_is_absent_or_ignored(frequency, activation):
    loss = create_loss("cross_entropy", frequency=frequency, activation=activation)
    for value in (0, -1):
        target = torch.full((1, 2, 4, 4), value) if activation == "sigmoid" else torch.full((1, 4, 4), value)
        assert loss(torch.randn(1, 2, 4, 4), target).isfinite()
