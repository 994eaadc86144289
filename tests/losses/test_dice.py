import pytest
import torch
from monai.losses import DiceLoss

from medseg.losses import create_loss


def test_worked_example(grid):
    assert 1 - create_loss("dice")(*grid).item() == pytest.approx(14 / 18, abs=1e-5)
    assert 1 - create_loss("dice", smooth=1)(*grid).item() == pytest.approx(15 / 19, abs=1e-6)
    assert 1 - create_loss("dice", include_background=True)(*grid).item() == pytest.approx(0.8264, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "missed", "invented", "dice"),
    [(14, 1, 0, 26 / 27), (14, 1, 1, 26 / 28), (2, 1, 0, 2 / 3), (2, 1, 1, 2 / 4)],
)
def test_one_pixel_on_a_large_and_a_small_object(size, missed, invented, dice):
    target = (torch.arange(25) < size).long().reshape(1, 5, 5)
    answer = (torch.arange(25) < size - missed) | (torch.arange(25) >= 25 - invented)
    logits = torch.stack([~answer, answer]).reshape(1, 2, 5, 5) * 100.0
    assert 1 - create_loss("dice", smooth=0)(logits, target).item() == pytest.approx(dice, abs=1e-6)


@pytest.mark.parametrize("smooth", [0.0, 1e-5])
def test_absent_structures(smooth):
    target = torch.zeros(1, 6, 6, dtype=int)
    nothing = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6)
    loss = create_loss("dice", smooth=smooth)
    assert loss(nothing, target).item() == pytest.approx(0, abs=1e-6)
    assert loss(-nothing, target).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_equals_monai(batch, background, batched, squared):
    logits, target = batch
    oracle = DiceLoss(
        softmax=True, to_onehot_y=True, include_background=background, batch=batched, squared_pred=squared
    )
    loss = create_loss("dice", include_background=background, batch=batched, squared=squared)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target[:, None]), atol=1e-5, rtol=0)


def test_overlapping_structures_equal_monai(overlapping):
    loss = create_loss("dice", activation="sigmoid")
    torch.testing.assert_close(loss(*overlapping), DiceLoss(sigmoid=True)(*overlapping), atol=1e-5, rtol=0)


def test_class_weights_are_a_weighted_mean(batch):
    logits, target = batch
    weights = (9.0, 1.0, 3.0)  # the first is background's, which does not count
    oracle = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, weight=weights[1:])
    expected = (
        oracle(logits, target[:, None]) * 2 / 4
    )  # monai divides by the number of classes, not by the sum of weights
    torch.testing.assert_close(create_loss("dice", class_weights=weights)(logits, target), expected, atol=1e-5, rtol=0)
